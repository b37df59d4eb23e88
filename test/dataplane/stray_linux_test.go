package dataplane

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"meshd/state"
	"meshd/test/rig"
)

// Rule L2: conntrack takes such a segment for invalid and does not translate it
// back; the host must not reset what it does not know.
func survivesStrays(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		for backend := range 3 { // of the host and of another one
			weights := []int{-1, -1, -1}
			weights[backend] = 1
			svc, every := s.service(v, "wrr", weights...), s.serviceAt(netip.AddrPortFrom(s.vip(v.six), 0), v.proto, "wrr",
				weights...)
			s.program(svc, every)
			for _, from := range s.w.places() {
				for _, to := range []netip.AddrPort{address(svc), address(every)} {
					c := s.open(client{place: from}, v.proto, to)
					if _, err := c.askForStray(); err != nil {
						s.Errorf("%s asked %s of backend %d, which sent a stray segment: %v", from, to, backend, err)
						continue
					}
					if got := s.asks(c); got != backend {
						s.Errorf("%s was answered by backend %d, want %d", from, got, backend)
					}
				}
			}
		}
	})
}

// strayRequest asks a server for a segment beyond the window.
const strayRequest = "stray"

// stray sends a segment to the client of a connection, numbered far beyond its
// window. It acknowledges all that has come, so that the server believes a reset
// that answers it.
func stray(n *rig.Namespace, c net.Conn) error {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("%T", c)
	}
	sent, received, err := sequenceNumbers(tcp)
	if err != nil {
		return err
	}
	from, to := unmapped(tcp.LocalAddr()), unmapped(tcp.RemoteAddr())
	segment := segmentOf(from, to, sent+1<<30, received)
	return n.Do(func() error {
		domain, source, target := unix.AF_INET, unix.Sockaddr(nil), unix.Sockaddr(nil)
		if from.Addr().Is4() {
			source, target = &unix.SockaddrInet4{Addr: from.Addr().As4()}, &unix.SockaddrInet4{Addr: to.Addr().As4()}
		} else {
			domain, source, target = unix.AF_INET6, &unix.SockaddrInet6{Addr: from.Addr().As16()},
				&unix.SockaddrInet6{Addr: to.Addr().As16()}
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, source); err != nil {
			return err
		}
		return unix.Sendto(fd, segment, 0, target)
	})
}

func unmapped(a net.Addr) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// sequenceNumbers returns the numbers of the next bytes of a connection that
// will be sent and received.
func sequenceNumbers(c *net.TCPConn) (sent, received uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	const repairOffWithoutProbe, receiveQueue, sendQueue = -1, 1, 2
	next := func(fd, queue int) (uint32, error) {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
			return 0, err
		}
		n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		return uint32(n), err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		if inner = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); inner != nil {
			return
		}
		if received, inner = next(int(fd), receiveQueue); inner == nil {
			sent, inner = next(int(fd), sendQueue)
		}
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOffWithoutProbe); err != nil {
			inner = err
		}
	})
	if err == nil {
		err = inner
	}
	return sent, received, err
}

// segmentOf returns a TCP segment with some data.
func segmentOf(from, to netip.AddrPort, seq, ack uint32) []byte {
	const dataOffset, ackAndPush = 5 << 4, 0x18
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ack)
	b = append(b, dataOffset, ackAndPush, 0xff, 0xff, 0, 0, 0, 0)
	b = append(b, "far beyond"...)
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(b)))
	var sum uint32
	for _, part := range [][]byte{pseudo, b} { // both of an even length
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}
