package dataplane

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"

	"meshd/lb"
	"meshd/state"
)

// refused checks that a client is refused at once: the error comes from an answer,
// not from the lack of one. UDP is refused by ICMP. The kernel sends a client one
// such message a second, so a client that gets none asks again.
func (s *stage) refused(from client, proto state.Proto, to netip.AddrPort) {
	s.Helper()
	var err error
	if proto == state.UDP {
		c := s.open(from, proto, to)
		err = untilCut(c)
	} else {
		_, err = s.once(from, proto, to)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		s.Errorf("%s asks %s/%s: %v, want connection refused", from.place, to, proto, err)
	}
}

// Rule L5: refused, not left waiting, and served again as soon as there is a
// backend.
func refusesWithoutBackends(s *stage) {
	s.each(func(s *stage, v variant) {
		empty, quiet := s.service(v, "wrr"), s.service(v, "mh", 0, 0)
		served := s.serviceAt(address(empty), v.proto, "wrr", 1)
		s.program(empty, quiet)
		for range 2 {
			for _, from := range s.w.places() {
				s.refused(client{place: from}, v.proto, address(empty))
				s.refused(client{place: from}, v.proto, address(quiet))
			}
			s.also(served)
			for _, from := range s.w.places() {
				s.wantSpread(from, v.proto, address(empty), 2)
			}
			s.also(empty)
		}
	})
}

// atOnce is more connections than a client gets ICMP messages in many seconds.
const atOnce = 40

// Rules L2, L5: no limit on ICMP, which is as the kernel has it, slows down
// refusals of TCP. A client that is not refused at once sends its segment again.
func refusesMany(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		empty, quiet := s.service(v, "wrr"), s.service(v, "mh", 0, 0)
		every := s.serviceAt(netip.AddrPortFrom(s.vip(v.six), 0), v.proto, "wrr")
		s.program(empty, quiet, every)
		for _, from := range s.w.places() {
			calm := s.w.calm(s.T, from)
			start := time.Now()
			for _, svc := range []*lb.Service{empty, quiet, every} {
				s.refusedTogether(client{place: from}, v.proto, address(svc))
			}
			s.Logf("%s: %d refusals in %v", from, 3*atOnce, time.Since(start))
			if err := calm(); err != nil {
				s.Errorf("%s: %v", from, err)
			}
		}
	})
}

// refusedTogether checks that connections which are made at the same time are
// all refused.
func (s *stage) refusedTogether(from client, proto state.Proto, to netip.AddrPort) {
	s.Helper()
	errs := make(chan error, atOnce)
	for range atOnce {
		go func() {
			_, err := s.once(from, proto, to)
			errs <- err
		}()
	}
	for range atOnce {
		if err := <-errs; !errors.Is(err, syscall.ECONNREFUSED) {
			s.Errorf("%s asks %s/%s: %v, want connection refused", from.place, to, proto, err)
		}
	}
}

// Rule L2: the host itself listens on port 22 of every address.
func guards(s *stage) {
	s.each(func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1)
		s.program(svc)
		for _, from := range s.w.places() {
			s.refused(client{place: from}, v.proto, netip.AddrPortFrom(svc.VIP, 22))
			s.refused(client{place: from}, v.proto, netip.AddrPortFrom(s.vip(v.six), 22)) // of no service
		}
	})
}

// untilCut asks again and again, as clients of UDP do, until something else
// happens than nothing: IPVS loses one datagram of the own host.
func untilCut(c conn) (err error) {
	for end := time.Now().Add(*patience); time.Now().Before(end); {
		if _, err = c.askFor(time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return err
}

func removesServices(s *stage) {
	s.each(func(s *stage, v variant) {
		svc, other := s.service(v, "wrr", 1), s.service(v, "wrr", 1)
		s.program(svc, other)
		held, stays := s.open(client{place: remote}, v.proto, address(svc)),
			s.open(client{place: remote}, v.proto, address(other))
		s.asks(held)
		s.asks(stays)
		s.program(other)
		if err := untilCut(held); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
			s.Errorf("a connection to a service that is gone: %v, want it to be cut", err)
		}
		s.refused(client{place: remote}, v.proto, address(svc))
		s.asks(stays)
	})
}

// Rule V5: while a VIP moves, both addresses are served.
func movesVIPs(s *stage) {
	s.each(func(s *stage, v variant) {
		before := s.service(v, "wrr", 1, 1)
		after := s.service(v, "wrr", 1, 1)
		s.program(before)
		old := s.open(client{place: remote}, v.proto, address(before))
		backend := s.asks(old)
		s.program(before, after)
		for _, from := range s.w.places() {
			s.wantSpread(from, v.proto, address(before), 1, 1)
			s.wantSpread(from, v.proto, address(after), 1, 1)
		}
		if got := s.asks(old); got != backend {
			s.Errorf("a connection to the old address went from backend %d to %d", backend, got)
		}
		fresh := s.open(client{place: remote}, v.proto, address(after))
		backend = s.asks(fresh)
		s.program(after)
		s.refused(client{place: remote}, v.proto, address(before))
		if got := s.asks(fresh); got != backend {
			s.Errorf("a connection to the new address went from backend %d to %d", backend, got)
		}
	})
}

func changesPort(s *stage) {
	s.each(func(s *stage, v variant) {
		before := s.service(v, "wrr", 1, 1)
		after := s.serviceAt(netip.AddrPortFrom(before.VIP, 443), v.proto, "wrr", 1, 1)
		s.program(before)
		s.wantSpread(remote, v.proto, address(before), 1, 1)
		s.program(after)
		s.wantSpread(remote, v.proto, address(after), 1, 1)
		s.refused(client{place: remote}, v.proto, address(before))
	})
}

// unserved checks that an address is no longer ours: whatever has it then, the
// backends do not answer.
func (s *stage) unserved(proto state.Proto, to netip.AddrPort) {
	s.Helper()
	c, err := s.w.dial(client{place: ownHost}, proto, to)
	if err != nil {
		return
	}
	defer c.close()
	if a, err := c.askFor(time.Second); err == nil {
		s.Errorf("%s is still served, by %s", to, a.backend)
	}
}

func removesPools(s *stage) {
	s.each(func(s *stage, v variant) {
		gone, stays := s.service(v, "wrr", 1), s.service(variant{v.proto, !v.six}, "wrr", 1)
		s.program(gone, stays)
		s.wantSpread(remote, v.proto, address(gone), 1)
		want := s.table(stays)
		for p := range want.Pools {
			if p.Contains(gone.VIP) {
				delete(want.Pools, p)
			}
		}
		s.reach(want)
		s.wantSpread(remote, v.proto, address(stays), 1)
		s.unserved(v.proto, address(gone))
		s.reach(s.table(stays, gone))
		s.wantSpread(remote, v.proto, address(gone), 1)
	})
}

// Rule L1: others' tables, routes and services stay, whatever we do.
func leavesForeigners(s *stage) {
	intact := s.w.foreigners(s.T)
	check := func(when string) {
		s.Helper()
		if err := intact(); err != nil {
			s.Errorf("%s: %v", when, err)
		}
	}
	svc := s.service(variant{state.TCP, false}, "wrr", 1, 1)
	s.program(svc, s.serviceAt(netip.AddrPortFrom(s.vip(false), 0), state.TCP, "wrr", 1))
	check("programmed")
	s.wantSpread(remote, state.TCP, address(svc), 1, 1)
	s.restart()
	got, err := s.d.Snapshot(s.Context())
	if err != nil || len(got.Services) != 2 {
		s.Errorf("%d services adopted, %v; want our 2", len(got.Services), err)
	}
	check("restarted")
	s.program()
	check("emptied")
	if err := s.d.Teardown(s.Context()); err != nil {
		s.Error(err)
	}
	check("torn down")
	if err := s.d.Setup(s.Context()); err != nil {
		s.Error(err)
	}
	check("set up again")
	s.at = lb.NewTable()
	s.program(svc)
	s.wantSpread(remote, state.TCP, address(svc), 1, 1)
}
