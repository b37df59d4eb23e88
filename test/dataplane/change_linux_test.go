package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"meshd/lb"
	"meshd/state"
)

func drains(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, 1)
		s.program(svc)
		for _, from := range s.w.places() {
			s.program(svc)
			var held [2]conn // one to each backend
			for range held {
				c := s.open(client{place: from}, v.proto, address(svc))
				held[s.asks(c)] = c
			}
			s.program(s.serviceAt(address(svc), v.proto, "wrr", 0, 1))
			s.wantSpread(from, v.proto, address(svc), 0, 4)
			for want, c := range held {
				if got := s.asks(c); got != want {
					s.Errorf("a connection of %s to backend %d went on with %d", from, want, got)
				}
			}
		}
	})
}

func cuts(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, -1, -1)
		s.program(svc)
		held := s.open(client{place: remote}, v.proto, address(svc))
		s.asks(held)
		s.program(s.serviceAt(address(svc), v.proto, "wrr", 0, -1, 1))
		s.asks(held)
		s.program(s.serviceAt(address(svc), v.proto, "wrr", -1, -1, 1))
		if a, err := held.ask(); !errors.Is(err, syscall.ECONNRESET) {
			s.Errorf("after the drain: answer of %v, %v; want a reset", a.backend, err)
		}
		s.wantSpread(remote, v.proto, address(svc), 0, 0, 2)
	})
}

func undrains(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, 1)
		s.program(svc)
		held := s.open(client{place: remote}, v.proto, address(svc))
		backend := s.asks(held)
		weights := []int{1, 1}
		weights[backend] = 0
		s.program(s.serviceAt(address(svc), v.proto, "wrr", weights...))
		s.program(svc)
		if got := s.asks(held); got != backend {
			s.Errorf("the connection went from backend %d to %d", backend, got)
		}
		s.wantSpread(remote, v.proto, address(svc), 2, 2)
	})
}

// Rule L5: the client keeps its port, as one that asks again and again does.
func movesUDP(s *stage) {
	s.eachOf(state.UDP, func(s *stage, v variant) {
		for _, from := range s.w.places() {
			svc := s.service(v, "wrr", 1, -1, -1)
			s.program(svc)
			held := s.open(client{place: from}, v.proto, address(svc))
			if got := s.asks(held); got != 0 {
				s.Fatalf("backend %d answered, want 0", got)
			}
			s.program(s.serviceAt(address(svc), v.proto, "wrr", -1, -1, 1))
			if got := s.asks(held); got != 2 {
				s.Errorf("after its backend went, %s was answered by %d, want 2", from, got)
			}
			s.program(s.serviceAt(address(svc), v.proto, "wrr"))
			if err := untilCut(held); !errors.Is(err, syscall.ECONNREFUSED) {
				s.Errorf("after all backends went, %s got %v, want connection refused", from, err)
			}
			s.program(svc)
			if got := s.asks(held); got != 0 {
				s.Errorf("with a backend again, %s was answered by %d, want 0", from, got)
			}
		}
	})
}

// variety programs services of every kind and holds a connection to each.
func (s *stage) variety() (services []*lb.Service, held []conn) {
	s.Helper()
	for _, v := range s.variants() {
		for _, scheduler := range []string{"wrr", "sh", "mh", "wlc"} {
			svc := s.service(v, scheduler, 1, 1, 1)
			services = append(services, svc)
		}
		weighted, quiet, drain := s.service(v, "wrr", 30, 10), s.service(v, "wrr"), s.service(v, "rr", 1, 0)
		sticky := s.service(v, "wrr", 5, 5)
		sticky.Affinity = 90_000_000_000
		mapped := s.mapped(netip.AddrPortFrom(s.vip(v.six), offered), v.proto, map[target]uint32{{0, 80}: 1, {0, 443}: 1})
		services = append(services, weighted, quiet, drain, sticky, mapped)
	}
	s.program(services...)
	for _, svc := range services {
		if len(svc.Backends) > 0 {
			c := s.open(client{place: remote}, svc.Proto, address(svc))
			s.asks(c)
			held = append(held, c)
		}
	}
	return services, held
}

// unharmed checks that the connections are answered.
func (s *stage) unharmed(held []conn, when string) {
	s.Helper()
	for _, c := range held {
		if _, err := c.ask(); err != nil {
			s.Errorf("%s a connection was lost: %v", when, err)
		}
	}
}

// adopts reads the table back, as a new daemon does, and returns the
// operations that it would carry out.
func (s *stage) adopts(services ...*lb.Service) []lb.Op {
	s.Helper()
	got, err := s.d.Snapshot(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	s.at = got
	return lb.Diff(got, s.table(services...), drained)
}

// Rule L1: a new process takes over what the old one left.
func (s *stage) takesOver(end func()) {
	s.Helper()
	services, held := s.variety()
	end()
	s.restart()
	s.unharmed(held, "after setup")
	for i, op := range s.adopts(services...) {
		if i < 10 {
			s.Errorf("the new process has something to do: %s", op)
		}
	}
	s.program(services...)
	s.unharmed(held, "after adoption")
	for _, from := range []place{remote, ownHost} {
		s.wantSpread(from, services[0].Proto, address(services[0]), 2, 2, 2)
	}
}

func restarts(s *stage) {
	s.takesOver(func() {
		if err := s.d.Close(); err != nil {
			s.Error(err)
		}
	})
}

func survivesKill(s *stage) { s.takesOver(func() {}) }

// A change is safe at every prefix of its operations: the next process finishes
// what the one before has begun.
func diesMidway(s *stage) {
	v := variant{state.TCP, false}
	stays, goes, comes := s.service(v, "wrr", 1, 1, -1), s.service(v, "wrr", 1), s.service(v, "wrr", -1, 1)
	before := s.table(stays, goes)
	after := s.table(s.serviceAt(address(stays), v.proto, "wlc", 1, -1, 3), comes)
	for done := 0; ; done++ {
		s.reach(before)
		var held conn // to a backend that stays
		for backend := -1; backend != 0; {
			held = s.open(client{place: remote}, v.proto, address(stays))
			backend = s.asks(held)
		}
		ops := lb.Diff(s.at, after, drained)
		if done > len(ops) {
			return
		}
		for i, err := range s.d.Apply(s.Context(), ops[:done]) {
			if err != nil {
				s.Fatalf("%s: %v", ops[i], err)
			}
		}
		s.restart()
		s.adopts()
		s.reach(after)
		s.audit(after, fmt.Sprintf("died after %d of %d operations", done, len(ops)))
		if got := s.asks(held); got != 0 {
			s.Errorf("died after %d of %d operations: the connection went from backend 0 to %d", done, len(ops), got)
		}
		s.wantSpread(remote, v.proto, address(comes), 0, 2)
		s.refused(client{place: remote}, v.proto, address(goes))
	}
}

// After a restart, what changes is done in place: what is not touched goes on.
func changesAfterRestart(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, 1, 0)
		s.program(svc)
		held := s.open(client{place: remote}, v.proto, address(svc))
		backend := s.asks(held)
		s.restart()
		s.adopts(svc)
		s.program(s.serviceAt(address(svc), v.proto, "wrr", 2, 2, 2, 2))
		if got := s.asks(held); got != backend {
			s.Errorf("the connection went from backend %d to %d", backend, got)
		}
		s.wantSpread(remote, v.proto, address(svc), 1, 1, 1, 1)
	})
}

// Where the kernel forgets a connection, the next packet is balanced as a new
// one: hashing finds the same backend.
func survivesIdle(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		svc := s.service(v, "mh", 1, 1, 1, 1)
		s.program(svc)
		held := s.open(client{place: remote}, v.proto, address(svc))
		var backend int
		s.w.idle(s.T, svc.VIP, func() { backend = s.asks(held) })
		if got := s.asks(held); got != backend {
			s.Errorf("after idling the connection went from backend %d to %d", backend, got)
		}
	})
}

func resetsIdle(s *stage) {
	s.eachOf(state.TCP, func(s *stage, v variant) {
		svc := s.service(v, "wrr", 1, 1)
		s.program(svc)
		held := s.open(client{place: remote}, v.proto, address(svc))
		s.w.idle(s.T, svc.VIP, func() { s.asks(held) })
		if a, err := held.ask(); !errors.Is(err, syscall.ECONNRESET) {
			s.Errorf("after idling: answer of %v, %v; want a reset", a.backend, err)
		}
		s.wantSpread(remote, v.proto, address(svc), 1, 1)
	})
}
