package resolver

// This file owns the list of clients that are served (R8).

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// clientList is the clients that listeners on addresses of the host serve. It is
// immutable.
type clientList struct {
	prefixes []netip.Prefix
	host     []netip.Addr // the host's own addresses beside loopback, sorted
}

// isHost reports whether the host itself asks: a program on it that asks at one
// of its addresses usually does so from that address, and not from loopback.
func (l *clientList) isHost(a netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(l.host, a, netip.Addr.Compare)
	return ok
}

func (l *clientList) contains(a netip.Addr) bool {
	return slices.ContainsFunc(l.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// SetClients replaces Config.Clients and Config.HostAddrs. With nil prefixes all
// clients are served. Safe for concurrent use.
func (s *Server) SetClients(prefixes []netip.Prefix, host []netip.Addr) {
	if prefixes == nil {
		s.clients.Store(nil)
		return
	}
	host = slices.Clone(host)
	for i, a := range host {
		host[i] = a.Unmap().WithZone("") // the form in which a client's address is looked up
	}
	slices.SortFunc(host, netip.Addr.Compare)
	if have := s.clients.Load(); have == nil || !slices.Equal(have.prefixes, prefixes) || !slices.Equal(have.host, host) {
		s.clients.Store(&clientList{slices.Clone(prefixes), host})
	}
}

// LastStranger returns the client that was refused last; ok is false if none was.
func (s *Server) LastStranger() (last Stranger, ok bool) {
	p := s.stranger.Load()
	if p == nil {
		return Stranger{}, false
	}
	last = *p
	last.Refused = s.met.get(countStrangers)
	return last, true
}

// serves reports whether a connection from the address is served.
func (s *Server) serves(client netip.Addr) bool {
	client = client.Unmap().WithZone("")
	list := s.clients.Load()
	if list == nil || client.IsLoopback() || list.isHost(client) || list.contains(client) || s.cfg.LocalTask != nil &&
		s.cfg.LocalTask(client) {
		return true
	}
	s.met.count(countStrangers)
	s.stranger.Store(&Stranger{Addr: client, At: time.Now()})
	return false
}

// gated is the gate before a UDP socket that the library reads, such as one on
// the unspecified address.
type gated struct {
	dns.Reader
	gate *gate
}

// ReadUDP returns the next packet of a client that is served.
func (r gated) ReadUDP(c *net.UDPConn, timeout time.Duration) ([]byte, *dns.SessionUDP, error) {
	for {
		m, session, err := r.Reader.ReadUDP(c, timeout)
		if err != nil {
			return m, session, err
		}
		r.gate.begin()
		a := r.gate.admit(addrPort(session.RemoteAddr()).Addr().Unmap().WithZone(""))
		if a == admitted {
			return m, session, nil
		}
		if n := r.gate.reply(a, m, len(m)); n > 0 {
			_, _ = dns.WriteToSessionUDP(c, m[:n], session) // lost like any datagram
		}
		r.gate.counts.flush(r.gate.server.met)
	}
}

// ReadPacketConn is not gated: such sockets are given, or gate themselves.
func (r gated) ReadPacketConn(c net.PacketConn, timeout time.Duration) ([]byte, net.Addr, error) {
	return r.Reader.(dns.PacketConnReader).ReadPacketConn(c, timeout)
}
