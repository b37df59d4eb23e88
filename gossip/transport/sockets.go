package transport

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

// This file owns the sockets. It knows nothing of what they carry.

// Sockets is a memberlist transport on one port for streams and datagrams. It differs
// from memberlist's own in one thing: a datagram for which the socket has no room is lost,
// as it may be on the wire, and nothing waits for room. The kernel keeps what goes to a
// neighbour that does not answer ARP for three seconds in the socket's buffer. Some dozen
// hosts that were switched off, or invented names at free addresses of the subnet, fill
// it, and would stop the core. It implements memberlist.NodeAwareTransport.
type Sockets struct {
	// Fixed by Open.

	tcp  *net.TCPListener // for streams
	udp  *net.UDPConn     // for datagrams, on the same port
	raw  syscall.RawConn  // of udp
	six  bool             // udp takes addresses of IPv6 only, and those of IPv4 in their IPv6 form
	all4 bool             // bound to 0.0.0.0

	// What arrives, until the end.

	packets chan *memberlist.Packet // datagrams
	streams chan net.Conn           // incoming streams
	closing chan struct{}           // closed by Shutdown
	once    sync.Once               // closes it
	wg      sync.WaitGroup          // of receive and accept
}

// The buffers that the kernel is asked for: for what comes in as much as
// memberlist asks for, and for what goes out room for the neighbours of some
// dozen dead hosts.
const (
	receiveBuffer = 2 << 20
	sendBuffer    = 8 << 20
	maxDatagram   = 64 << 10
	errorPause    = 100 * time.Millisecond // after an error, such as too many open files
)

var errNoRoom = errors.New("no room in the socket's buffer")

// Open listens on an address with UDP and TCP; port 0 means one that is free. Whoever
// opened the sockets ends them with Shutdown.
func Open(bind netip.AddrPort) (*Sockets, error) {
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
	s := &Sockets{
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

// prepare sizes the buffers, as far as the kernel allows, and finds out the
// family of udp.
func (s *Sockets) prepare() (err error) {
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

// Port is the port of both sockets.
func (s *Sockets) Port() int { return s.tcp.Addr().(*net.TCPAddr).Port }

func (s *Sockets) receive() {
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

// pause waits for a moment after an error, so that one that does not go away
// costs nothing.
func (s *Sockets) pause() {
	select {
	case <-time.After(errorPause):
	case <-s.closing:
	}
}

func (s *Sockets) accept() {
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

// send writes a datagram without waiting for room.
func (s *Sockets) send(b []byte, to netip.AddrPort) error {
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
func (s *Sockets) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	if ip == "" && s.all4 {
		private, err := sockaddr.GetPrivateIP()
		if err != nil || private == "" {
			return nil, 0, errors.Join(err, errors.New("no private address found"))
		}
		ip, port = private, s.Port()
	}
	if ip == "" {
		return s.tcp.Addr().(*net.TCPAddr).IP, s.Port(), nil
	}
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, 0, err
	}
	return a.Unmap().AsSlice(), port, nil
}

// WriteTo implements memberlist.Transport.
func (s *Sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. It fails where the
// socket has no room.
func (s *Sockets) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err == nil {
		err = s.send(b, to)
	}
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (s *Sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh implements memberlist.Transport.
func (s *Sockets) StreamCh() <-chan net.Conn { return s.streams }

// DialTimeout implements memberlist.Transport.
func (s *Sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (s *Sockets) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return s.DialTimeout(a.Addr, timeout)
}

// Shutdown implements memberlist.Transport.
func (s *Sockets) Shutdown() error {
	s.once.Do(func() { close(s.closing) })
	err := errors.Join(s.tcp.Close(), s.udp.Close())
	s.wg.Wait()
	return err
}
