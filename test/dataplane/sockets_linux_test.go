package dataplane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"meshd/state"
	"meshd/test/rig"
)

func (k *kernel) dial(from client, proto state.Proto, to netip.AddrPort) (conn, error) {
	var local netip.AddrPort
	switch family := b2i(to.Addr().Is6()); {
	case from.address > 0:
		local = netip.AddrPortFrom(k.addresses[family][from.address], from.port)
	case from.port > 0 && family == 0:
		local = netip.AddrPortFrom(netip.IPv4Unspecified(), from.port)
	case from.port > 0:
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), from.port)
	}
	d := net.Dialer{Timeout: *patience}
	if local.IsValid() && proto == state.TCP {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	} else if local.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	}
	var c net.Conn
	err := k.at(from.place).Do(func() (err error) {
		c, err = d.DialContext(context.Background(), proto.String(), to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &socket{Conn: c}, nil
}

// socket is a conn of a real kernel.
type socket struct{ net.Conn }

func (s *socket) ask() (answer, error) { return s.askFor(*patience) }

func (s *socket) askFor(d time.Duration) (answer, error) { return s.askWith("who\n", d) }

func (s *socket) askAtLength(n int) (answer, error) {
	return s.askWith(strings.Repeat("x", n-1)+"\n", *patience)
}

func (s *socket) askForStray() (answer, error) { return s.askWith(strayRequest+"\n", *patience) }

func (s *socket) askWith(text string, d time.Duration) (answer, error) {
	_ = s.SetDeadline(time.Now().Add(d))
	if _, err := io.WriteString(s, text); err != nil {
		return answer{}, s.told(err)
	}
	buf := make([]byte, 200)
	n, err := s.Read(buf)
	if err != nil {
		return answer{}, err
	}
	backend, seen, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	a, err := netip.ParseAddrPort(backend)
	if err != nil {
		return answer{}, fmt.Errorf("answer %q: %w", buf[:n], err)
	}
	c, err := netip.ParseAddrPort(seen)
	return answer{backend: a, seen: c.Addr().Unmap()}, err
}

// told returns the kernel's error about a datagram that it did not send. What IPVS
// drops on its way out of the own host fails with EPERM. The refusal that came
// back as a message of ICMP is the pending error of the socket.
func (s *socket) told(err error) error {
	raw, ok := s.Conn.(syscall.Conn)
	if !ok || !errors.Is(err, syscall.EPERM) {
		return err
	}
	c, e := raw.SyscallConn()
	if e != nil {
		return err
	}
	_ = c.Control(func(fd uintptr) {
		if n, e := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); e == nil && n != 0 {
			err = syscall.Errno(n)
		}
	})
	return err
}

// close ends the connection with a reset: no state lingers that a later
// connection from the same port could meet.
func (s *socket) close() {
	if tcp, ok := s.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = s.Close()
}

// serve answers on TCP and UDP with "its-address client-address".
func serve(t *testing.T, n *rig.Namespace, at netip.AddrPort) {
	t.Helper()
	l, err := n.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p, err := n.ListenPacket(context.Background(), "udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	go serveTCP(n, l, at)
	go serveUDP(p, at)
}

// serveTCP answers every line; strayRequest is answered by a segment beyond the
// client's window first.
func serveTCP(n *rig.Namespace, l net.Listener, at netip.AddrPort) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for lines := bufio.NewScanner(c); lines.Scan(); {
				if lines.Text() == strayRequest {
					if err := stray(n, c); err != nil {
						fmt.Fprintf(c, "stray segment: %v\n", err)
						continue
					}
				}
				fmt.Fprintf(c, "%s %s\n", at, c.RemoteAddr())
			}
		}()
	}
}

func serveUDP(p net.PacketConn, at netip.AddrPort) {
	buf := make([]byte, 1<<16)
	for {
		_, from, err := p.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = fmt.Fprintf(writerTo{p, from}, "%s %s\n", at, from)
		}
	}
}

type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }

func (k *kernel) ping(from place, to netip.Addr) error {
	network, kind, protocol := "ip4:icmp", icmp.Type(ipv4.ICMPTypeEcho), 1
	if to.Is6() {
		network, kind, protocol = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest, 58
	}
	var c *icmp.PacketConn
	err := k.at(from).Do(func() (err error) { c, err = icmp.ListenPacket(network, ""); return err })
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(*patience))
	id := os.Getpid() & 0xffff
	raw, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte("meshd")}}).Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(raw, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	for buf := make([]byte, 1500); ; {
		n, peer, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil {
			return err
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.ID == id && m.Type != kind {
			if peer.String() != to.String() {
				return fmt.Errorf("answer from %s", peer)
			}
			return nil
		}
	}
}
