package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	sockaddr "github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/memberlist"
	"golang.org/x/sys/unix"
)

// sockets is a host's transport: one port for streams and datagrams. It is what
// memberlist's own is, but for one thing: a datagram for which the socket has no
// room is lost, as it may be on the wire, and nobody waits. The kernel keeps what
// goes to a neighbour that does not answer ARP for three seconds, in the buffer of
// the socket; some dozen hosts that were switched off, or names that somebody
// made up at free addresses of the subnet, fill it, and would stop the core.
type sockets struct {
	tcp     *net.TCPListener
	udp     *net.UDPConn
	raw     syscall.RawConn // of udp
	six     bool            // udp takes addresses of IPv6 only, those of IPv4 in their form
	all4    bool            // bound to 0.0.0.0
	packets chan *memberlist.Packet
	streams chan net.Conn
	closing chan struct{}
	once    sync.Once // closes it
	wg      sync.WaitGroup
}

// What the kernel is asked to hold for the socket: what memberlist asks for what
// comes in, and room for the neighbours of some dozen dead hosts.
const (
	receiveBuffer = 2 << 20
	sendBuffer    = 8 << 20
	maxDatagram   = 64 << 10
	errorPause    = 100 * time.Millisecond // say of too many files
)

var errNoRoom = errors.New("no room in the socket's buffer")

// OpenTransport returns what a Host opens itself where HostConfig.Transport is nil,
// for whoever dials in another way, say out of a network namespace: UDP and TCP
// sockets on one address. A datagram for which there is no room is lost, and
// nobody waits. Whoever opened it, or the host that it was given to, ends it with
// Shutdown.
func OpenTransport(bind netip.AddrPort) (memberlist.NodeAwareTransport, error) {
	s, err := openSockets(bind)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openSockets binds both to an address; port 0 is one that is free.
func openSockets(bind netip.AddrPort) (*sockets, error) {
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(bind))
	if err != nil {
		return nil, err
	}
	port := tcp.Addr().(*net.TCPAddr).AddrPort().Port()
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(bind.Addr(), port)))
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	s := &sockets{
		tcp: tcp, udp: udp, all4: bind.Addr() == netip.IPv4Unspecified(), packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn), closing: make(chan struct{}),
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, tcp.Close(), udp.Close())
	}
	s.wg.Go(s.receive)
	s.wg.Go(s.accept)
	return s, nil
}

// prepare sizes the buffers, as far as the kernel lets us, and learns the family.
func (s *sockets) prepare() (err error) {
	_ = s.udp.SetReadBuffer(receiveBuffer)
	_ = s.udp.SetWriteBuffer(sendBuffer)
	if s.raw, err = s.udp.SyscallConn(); err != nil {
		return err
	}
	return s.raw.Control(func(fd uintptr) {
		forceSendBuffer(int(fd), sendBuffer)
		if a, err := unix.Getsockname(int(fd)); err == nil {
			_, s.six = a.(*unix.SockaddrInet6)
		}
	})
}

func (s *sockets) port() int { return s.tcp.Addr().(*net.TCPAddr).Port }

func (s *sockets) receive() {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := s.udp.ReadFromUDP(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.pause()
			continue
		case n == 0:
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case s.packets <- p:
		case <-s.closing:
			return
		}
	}
}

// pause waits for a moment after an error, so that one that stays costs nothing.
func (s *sockets) pause() {
	select {
	case <-time.After(errorPause):
	case <-s.closing:
	}
}

func (s *sockets) accept() {
	for {
		c, err := s.tcp.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.pause()
			continue
		}
		select {
		case s.streams <- c:
		case <-s.closing:
			_ = c.Close()
			return
		}
	}
}

// send writes a datagram without waiting.
func (s *sockets) send(b []byte, to netip.AddrPort) error {
	var sa unix.Sockaddr
	switch a := to.Addr(); {
	case s.six:
		sa = &unix.SockaddrInet6{Port: int(to.Port()), Addr: a.As16(), ZoneId: zone(a)}
	case a.Unmap().Is4():
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.Unmap().As4()}
	default:
		return fmt.Errorf("%s is not of the socket's family", a)
	}
	var err error
	if e := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, sa)
		return true
	}); e != nil {
		return e
	}
	if errors.Is(err, unix.EAGAIN) {
		return errNoRoom
	}
	return err
}

func zone(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	i, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0
	}
	return uint32(i.Index)
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (s *sockets) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	if ip == "" && s.all4 {
		private, err := sockaddr.GetPrivateIP()
		if err != nil || private == "" {
			return nil, 0, errors.Join(err, errors.New("no private address found"))
		}
		ip, port = private, s.port()
	}
	if ip == "" {
		return s.tcp.Addr().(*net.TCPAddr).IP, s.port(), nil
	}
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, 0, err
	}
	return a.Unmap().AsSlice(), port, nil
}

// WriteTo implements memberlist.Transport.
func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. It
// fails where there is no room.
func (s *sockets) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err == nil {
		err = s.send(b, to)
	}
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh implements memberlist.Transport.
func (s *sockets) StreamCh() <-chan net.Conn { return s.streams }

// DialTimeout implements memberlist.Transport.
func (s *sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (s *sockets) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return s.DialTimeout(a.Addr, timeout)
}

// Shutdown implements memberlist.Transport.
func (s *sockets) Shutdown() error {
	s.once.Do(func() { close(s.closing) })
	err := errors.Join(s.tcp.Close(), s.udp.Close())
	s.wg.Wait()
	return err
}
