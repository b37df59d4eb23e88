package resolver

// This file owns listeners: opening their sockets, serving both, and closing.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/miekg/dns"
)

// Listener says where to answer, UDP and TCP on the same address, and for which clients.
type Listener struct {
	Addr netip.AddrPort // port 0: any that is free for both; see Bound.Addr
	// Networks binds the listener to a scope, in search order. nil: shared, the
	// networks are those of the client's address (R1). Empty but not nil: none.
	Networks []string
	// VIPsUsable takes the place of Config.VIPsUsable for this listener's
	// clients: those of a sandbox have a load balancer of their own (L4, R5).
	// nil: as Config says. It is called as often as that one.
	VIPsUsable func(network string) bool
	// Client stands for every client with a loopback address, in the limits per
	// client and in the query log: in a sandbox all processes ask from 127.0.0.1,
	// as those of other sandboxes do. Zero: each address stands for itself.
	Client netip.Addr
	// Packet and Stream are sockets that are already open, such as those of a
	// sandbox's network namespace; then Addr is not used. Both or neither.
	// All clients that reach them are served: Config.Clients and the limit of
	// Config.ClientRate are for addresses of the host. Listen takes ownership of
	// both, even when it fails.
	Packet net.PacketConn
	Stream net.Listener
	// Bare is asked for a single label that no network of the scope knows, as the name
	// server that a container had before meshd may know it (R9). It bounds itself in time
	// and number. nil, or no reply without an error: the name does not exist. It is called
	// by many goroutines; the question is not to be changed.
	Bare func(ctx context.Context, q *dns.Msg) (*dns.Msg, error)
}

// Bound is a Listener in service. Its methods are safe for concurrent use.
type Bound struct {
	// The clients, and what they are answered.
	server   *Server
	networks atomic.Pointer[[]string]  // to nil: shared
	vips     func(network string) bool // nil: always usable
	client   netip.Addr                // see Listener.Client
	// bare is Listener.Bare.
	bare func(ctx context.Context, q *dns.Msg) (*dns.Msg, error)

	// The sockets. Set once.
	addr     netip.AddrPort
	given    bool        // they were open already, maybe in another network namespace
	fast     bool        // the fast path sees the UDP questions first
	udp, tcp *dns.Server // serve the sockets
	done     chan error  // one result per dns.Server
}

// Addr returns the address, with the port that was chosen.
func (b *Bound) Addr() netip.AddrPort { return b.addr }

// SetNetworks replaces the networks of the listener; nil makes it shared.
func (b *Bound) SetNetworks(networks []string) {
	if networks != nil {
		networks = append([]string{}, networks...)
	}
	b.networks.Store(&networks)
}

// clientOf names the client at an address, for limits and logs.
func (b *Bound) clientOf(from netip.AddrPort) netip.AddrPort {
	if b.client.IsValid() && from.Addr().IsLoopback() {
		return netip.AddrPortFrom(b.client, from.Port())
	}
	return from
}

// scope returns the scope of a client.
func (b *Bound) scope(client netip.Addr) clientScope {
	if n := *b.networks.Load(); n != nil {
		return clientScope{Networks: n}
	}
	return b.server.zone.scopeOf(client)
}

// Listen opens (or takes) the sockets of l and answers on them until Close of
// the result or of the server.
func (s *Server) Listen(l Listener) (*Bound, error) {
	if (l.Packet == nil) != (l.Stream == nil) {
		closeAll(l.Packet, l.Stream)
		return nil, fmt.Errorf("%w: Listener: Packet and Stream: set both or neither", ErrConfig)
	}
	given := l.Packet != nil
	if !given {
		var err error
		if l.Packet, l.Stream, err = listenBoth(l.Addr); err != nil {
			return nil, err
		}
	}
	b := &Bound{
		server: s, addr: addrPort(l.Packet.LocalAddr()), done: make(chan error, 2), vips: l.VIPsUsable,
		client: l.Client, given: given, bare: l.Bare,
	}
	if b.vips == nil {
		b.vips = s.cfg.VIPsUsable
	}
	b.SetNetworks(l.Networks)
	if err := s.add(b); err != nil {
		closeAll(l.Packet, l.Stream)
		return nil, err
	}
	b.start(l)
	s.forward.probeAll()
	s.log.Info("dns is answered", "addr", b.addr, "networks", l.Networks)
	return b, nil
}

func closeAll(p net.PacketConn, l net.Listener) {
	if p != nil {
		p.Close()
	}
	if l != nil {
		l.Close()
	}
}

// listenBoth opens both sockets on one port.
func listenBoth(addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	if !addr.Addr().IsValid() {
		return nil, nil, fmt.Errorf("%w: Listener: Addr: empty; use an address such as 127.0.0.1:53", ErrConfig)
	}
	var lastErr error
	for range 16 { // a port that is free for UDP can be taken for TCP
		p, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		if err != nil {
			return nil, nil, err // it names the address
		}
		port := addrPort(p.LocalAddr()).Port()
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr(), port)))
		if err == nil {
			return p, l, nil
		}
		p.Close()
		lastErr = err
		if addr.Port() != 0 {
			break
		}
	}
	return nil, nil, lastErr
}

// start serves both sockets, and returns when they are being served.
func (b *Bound) start(l Listener) {
	s := b.server
	accept := func(h dns.Header) dns.MsgAcceptAction { return s.accept(h) }
	invalid := func([]byte, error) { s.met.count(countMalformed) }
	var g *gate
	var serves func(netip.Addr) bool
	if !b.given {
		g, serves = newGate(s), s.serves
	}
	b.udp = &dns.Server{
		PacketConn: s.wrapPacket(b, l.Packet, g), UDPSize: 4096, Handler: b,
		MsgAcceptFunc: accept, MsgInvalidFunc: invalid,
	}
	if b.fast = b.udp.PacketConn != l.Packet; !b.fast && g != nil {
		b.udp.DecorateReader = func(r dns.Reader) dns.Reader { return gated{r, g} }
	}
	b.tcp = &dns.Server{
		Listener: &tcpListener{
			Listener: l.Stream, total: s.cfg.MaxTCP, perClient: s.cfg.MaxTCPClient,
			full: func() { s.met.count(countTCPRefused) }, serves: serves, clients: map[netip.Addr]int{},
		},
		MaxTCPQueries: -1, Handler: b, MsgAcceptFunc: accept, MsgInvalidFunc: invalid,
	}
	for _, d := range []*dns.Server{b.udp, b.tcp} {
		started := make(chan struct{})
		d.NotifyStartedFunc = func() { close(started) }
		failed := make(chan struct{})
		go func() {
			err := d.ActivateAndServe()
			if err != nil {
				s.log.Error("dns listener ended", "addr", b.addr, "error", err)
			}
			b.done <- err
			close(failed)
		}()
		select {
		case <-started:
		case <-failed:
		}
	}
}

// Close stops answering, lets the questions in hand finish until ctx is done,
// and closes the sockets.
func (b *Bound) Close(ctx context.Context) error {
	if !b.server.remove(b) {
		return nil
	}
	return b.stop(ctx)
}

func (b *Bound) stop(ctx context.Context) error {
	var errs []error
	for _, d := range []*dns.Server{b.udp, b.tcp} {
		if err := d.ShutdownContext(ctx); err != nil {
			errs = append(errs, fmt.Errorf("close dns listener %s: %w", b.addr, err))
		}
	}
	return errors.Join(errs...)
}

// add registers b, unless the server is closed.
func (s *Server) add(b *Bound) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.bound = append(s.bound, b)
	s.own.Store(s.addrs())
	return nil
}

// remove unregisters b and reports whether it was registered.
func (s *Server) remove(b *Bound) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.bound, b)
	if i < 0 {
		return false
	}
	s.bound = slices.Delete(s.bound, i, i+1)
	s.own.Store(s.addrs())
	return true
}

// addrs returns the addresses at which this node reaches its own listeners. A
// sandbox's 127.0.0.11 is another server than the host's: if that leads back to
// us nevertheless, a probe finds out.
func (s *Server) addrs() *[]netip.AddrPort {
	var as []netip.AddrPort
	for _, b := range s.bound {
		if !b.given {
			as = append(as, b.addr)
		}
	}
	return &as
}
