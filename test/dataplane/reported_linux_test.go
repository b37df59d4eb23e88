package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/state"
)

// reported are what connections met with other software that balances them, by
// public reports.
var reported = []behaviour{
	// moby#29655
	{"a connection that its client has half closed counts for a drain, and is answered", countsHalfClosed},
	// kubernetes#90042
	{"one port of a client leads to one backend through two services at once", leadsOnePort},
	// cilium#33041
	{"a backend's host tells a client of UDP that nobody listens", tellsThatNobodyListens},
	// kubernetes#139629, #125467
	{"UDP that is never answered leaves a removed backend, also with affinity", movesOneWayUDP},
	// kubernetes#122740
	{"UDP stays with its backend over a restart of the daemon and a change of others", keepsUDP},
	// kube-router#685, cilium#47755
	{"a way that carries small packets only is found out, in both directions", findsNarrowWays},
	// kubernetes#59368
	{"a service changes its protocol", changesProtocol},
	// kubernetes#76699
	{"clients that use the same ports at once are kept apart, without a segment sent twice", keepsApart},
	// keepalived#2271
	{"what nobody knows any more is reset, also where conntrack takes up nothing in the middle", resetsUnknown},
	// kubernetes#101607
	{"a client that a dead backend has not answered meets another one while it drains", movesUnanswered},
}

// A model of connections has no packets.
func init() {
	for _, b := range reported {
		limits = append(limits, limit{world: "fake", behaviour: b.name, why: "it is a model of connections, not of packets"})
	}
}

// real returns the world's kernel.
func (s *stage) real() *kernel {
	s.Helper()
	switch w := s.w.(type) {
	case *nftWorld:
		return w.kernel
	case *ipvsWorld:
		return w.kernel
	}
	s.Fatalf("world %s has no kernel", s.w.name())
	return nil
}

// accept runs handle for each connection to a port of a backend.
func (s *stage) accept(backend int, six bool, port uint16, handle func(*net.TCPConn)) {
	s.Helper()
	k := s.real()
	l, err := k.backends[backend].Listen(s.Context(), "tcp", netip.AddrPortFrom(k.backend(backend, six), port).String())
	must(s.T, err)
	s.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
}

// tcp connects; the connection is closed at the end of the test, without a reset.
func (s *stage) tcp(from place, to netip.AddrPort) *net.TCPConn {
	s.Helper()
	c := s.open(client{place: from}, state.TCP, to).(*socket).Conn.(*net.TCPConn)
	must(s.T, c.SetDeadline(time.Now().Add(*patience)))
	return c
}

// lateAnswer is what a server says after its client has said all that it will.
const lateAnswer = "late"

// Rule L5: a client that has closed its side waits for the answer, and conntrack
// and IPVS have another state for it.
func countsHalfClosed(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		closed, answer := make(chan struct{}), make(chan struct{})
		s.accept(0, v.six, 81, func(c *net.TCPConn) {
			if _, err := io.ReadAll(c); err != nil {
				return
			}
			closed <- struct{}{}
			<-answer
			_, _ = io.WriteString(c, lateAnswer)
		})
		at := netip.AddrPortFrom(s.vip(v.six), 81)
		serving, drained := s.serviceAt(at, v.proto, "wrr", 1, 1), s.serviceAt(at, v.proto, "wrr", 0, 1)
		serving.Backends, drained.Backends = s.only(0, serving), s.only(0, drained)
		for _, from := range s.w.places() {
			s.program(serving)
			c := s.tcp(from, at)
			must(s.T, c.CloseWrite())
			<-closed
			s.program(drained)
			usage, err := s.d.Usage(s.Context(), []lb.Key{serving.Key})
			must(s.T, err)
			if n := usage[serving.Key].Backends[serving.Backends[0].Addr].Active; n < 1 {
				s.Errorf("%s: the backend drains with %d connections, one of which is half closed", from, n)
			}
			answer <- struct{}{}
			if text, err := io.ReadAll(c); err != nil || string(text) != lateAnswer {
				s.Errorf("%s got %q, %v", from, text, err)
			}
		}
	})
}

// only returns the entry of one of a service's backends.
func (s *stage) only(i int, svc *lb.Service) []lb.Backend {
	s.Helper()
	b, there := svc.Backend(netip.AddrPortFrom(s.w.backend(i, svc.VIP.Is6()), svc.Port))
	if !there {
		s.Fatalf("%s has no backend %d", svc.Key, i)
	}
	return []lb.Backend{b}
}

// dialShared connects from a port that more than one socket may have.
func (s *stage) dialShared(from place, proto state.Proto, to netip.AddrPort, port uint16) (conn, error) {
	d := net.Dialer{Timeout: *patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}), err)
	}}
	local := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	if to.Addr().Is6() {
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	d.LocalAddr = net.TCPAddrFromAddrPort(local)
	if proto == state.UDP {
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	}
	var c net.Conn
	err := s.real().at(from).Do(func() (err error) {
		c, err = d.DialContext(s.Context(), proto.String(), to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	s.Cleanup(func() { _ = c.Close() })
	return &socket{Conn: c}, nil
}

// A task of two services, or a service with two addresses.
func leadsOnePort(s *stage) {
	s.each(func(s *stage, v variant) {
		for backend := 1; backend <= 2; backend++ { // of the host and of another one
			weights := []int{-1, -1, -1}
			weights[backend] = 1
			services := []*lb.Service{s.service(v, "wrr", weights...), s.service(v, "wrr", weights...)}
			s.program(services...)
			for _, from := range s.w.places() {
				var held []conn
				for _, svc := range services {
					c, err := s.dialShared(from, v.proto, address(svc), 23000)
					if err != nil {
						s.Fatalf("%s connects to %s: %v", from, svc.Key, err)
					}
					held = append(held, c)
				}
				for range 2 {
					s.unharmed(held, "through the other service")
				}
				for _, c := range held {
					c.close()
				}
			}
		}
	})
}

// nf_conntrack_tcp_loose=0 is what SYNPROXY needs. Tasks are clients too.
func resetsUnknown(s *stage) {
	s.real().sysctl(s.T, "net.netfilter.nf_conntrack_tcp_loose", "0")
	s.restart()
	s.eachOf(state.TCP, func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, 1, 1)
		s.program(svc)
		held := map[place][]conn{}
		for _, from := range s.w.places() {
			for range svc.Backends {
				held[from] = append(held[from], s.open(client{place: from}, v.proto, address(svc)))
			}
		}
		s.w.idle(s.T, svc.VIP, func() {
			for from, all := range held {
				s.unharmed(all, string(from))
			}
		})
		for from, all := range held {
			for _, c := range all {
				if a, err := c.ask(); !errors.Is(err, syscall.ECONNRESET) {
					s.Errorf("%s: answer of %v, %v; want a reset", from, a.backend, err)
				}
			}
		}
	})
}

func changesProtocol(s *stage) {
	for _, six := range []bool{false, true} {
		s.Run(variant{state.TCP, six}.String(), func(t *testing.T) {
			s := s.with(t)
			tcp := s.service(variant{state.TCP, six}, "wrr", 1, 1)
			udp := s.serviceAt(address(tcp), state.UDP, "wrr", 1, 1)
			for _, step := range []struct {
				services []*lb.Service
				spread   []state.Proto
			}{
				{[]*lb.Service{tcp}, []state.Proto{state.TCP}},
				{[]*lb.Service{udp}, []state.Proto{state.UDP}},
				{[]*lb.Service{tcp, udp}, []state.Proto{state.TCP, state.UDP}},
			} {
				s.program(step.services...)
				for _, from := range s.w.places() {
					for _, proto := range step.spread {
						s.wantSpread(from, proto, address(tcp), 1, 1)
					}
				}
			}
			s.program(udp)
			s.refused(client{place: remote}, state.TCP, address(tcp))
		})
	}
}

// Rule L2: the backend sees one address, the host's, of clients that do not know
// of each other.
func keepsApart(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		const ports = 100
		svc := s.service(v, "wrr", -1, -1, 1)
		s.program(svc)
		var calm []func() error
		errs := make(chan error, ports*len(s.w.places()))
		for _, from := range s.w.places() {
			calm = append(calm, s.w.calm(s.T, from))
		}
		for _, from := range s.w.places() {
			for i := range ports {
				go func() {
					c, err := s.dialShared(from, v.proto, address(svc), uint16(24000+i))
					if err == nil {
						_, err = c.ask()
						c.close()
					}
					errs <- err
				}()
			}
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				s.Error(err)
			}
		}
		for i, check := range calm {
			if err := check(); err != nil {
				s.Errorf("%s: %v", s.w.places()[i], err)
			}
		}
	})
}

// Rule L5. The backend's host loses what it gets, as one that was switched off.
func movesUnanswered(s *stage) {
	hole := map[bool]netip.Addr{false: netip.MustParseAddr("10.1.2.77"), true: netip.MustParseAddr("fd21:0:0:2::77")}
	s.eachOf(state.TCP, func(s *stage, v variant) {
		h := s.real().backends[2].Host
		lost := &rtnl.Route{Dst: ipNet(netip.PrefixFrom(hole[v.six], hole[v.six].BitLen())), Type: unix.RTN_BLACKHOLE}
		must(s.T, h.Do(func() error { return rtnl.RouteAdd(lost) }))
		s.Cleanup(func() { must(s.T, h.Do(func() error { return rtnl.RouteDel(lost) })) })
		dead := lb.Backend{Addr: netip.AddrPortFrom(hole[v.six], port), Weight: 1}
		svc := s.service(v, "wrr", 1)
		before, after := *svc, *svc
		before.Backends = []lb.Backend{dead}
		s.program(&before)
		got := make(chan error, 4)
		for _, from := range s.w.places() {
			go func() {
				_, err := s.once(client{place: from}, v.proto, address(svc))
				if err != nil {
					err = fmt.Errorf("%s: %w", from, err)
				}
				got <- err
			}()
		}
		within(s.T, func() error {
			n, err := s.real().conntrack(svc.VIP)
			if err == nil && n < len(s.w.places()) {
				err = fmt.Errorf("%d clients have sent something", n)
			}
			return err
		})
		dead.Weight = 0
		after.Backends = append(after.Backends, dead)
		s.also(&after)
		s.looks(svc.Key, len(s.w.places()), got)
	})
}

// looks counts connections again and again, as the daemon does during a drain,
// until so many results are there.
func (s *stage) looks(k lb.Key, results int, got <-chan error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), *patience)
	defer cancel()
	for tick := time.Tick(100 * time.Millisecond); results > 0; {
		select {
		case err := <-got:
			if results--; err != nil {
				s.Error(err)
			}
		case <-tick:
			if _, err := s.d.Usage(ctx, []lb.Key{k}); err != nil {
				s.Fatal(err)
			}
		}
	}
}
