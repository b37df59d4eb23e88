package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

// offered is a port of services whose tasks listen elsewhere: on 80 and 443 (L16).
const offered = 8000

// target is where a task of a service listens.
type target struct {
	backend int
	port    uint16
}

// place returns where a target is.
func (s *stage) place(x target, six bool) netip.AddrPort {
	return netip.AddrPortFrom(s.w.backend(x.backend, six), x.port)
}

// mapped makes a service on an address whose backends are targets, by weight.
func (s *stage) mapped(at netip.AddrPort, proto state.Proto, weights map[target]uint32) *lb.Service {
	svc := s.serviceAt(at, proto, "wrr")
	for x, weight := range weights {
		svc.Backends = append(svc.Backends, lb.Backend{Addr: s.place(x, at.Addr().Is6()), Weight: weight})
	}
	slices.SortFunc(svc.Backends, func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) })
	return svc
}

// wantTargets checks how connections spread over targets.
func (s *stage) wantTargets(from place, proto state.Proto, to netip.AddrPort, want map[target]int) {
	s.Helper()
	total, counts := 0, map[netip.AddrPort]int{}
	for x, n := range want {
		total += n
		counts[s.place(x, to.Addr().Is6())] = n
	}
	var got map[netip.AddrPort]int
	for range spreadTries { // as wantSpread
		got = map[netip.AddrPort]int{}
		for range total {
			a, err := s.answer(client{place: from}, proto, to)
			if err != nil {
				s.Fatalf("%s asks %s/%s: %v", from, to, proto, err)
			}
			got[a.backend]++
		}
		if maps.Equal(got, counts) {
			return
		}
	}
	s.Errorf("%d connections of %s to %s/%s spread %v, want %v", total, from, to, proto, got, counts)
}

// asksTarget asks on a connection and returns who answers.
func (s *stage) asksTarget(c conn) netip.AddrPort {
	s.Helper()
	a, err := c.ask()
	if err != nil {
		s.Fatalf("a request was not answered: %v", err)
	}
	return a.backend
}

// hold opens connections until each target has one.
func (s *stage) hold(from place, proto state.Proto, to netip.AddrPort, targets ...target) []conn {
	s.Helper()
	held := make([]conn, len(targets))
	for range 8 * len(targets) {
		c := s.open(client{place: from}, proto, to)
		answered := s.asksTarget(c)
		for i, x := range targets {
			if s.place(x, to.Addr().Is6()) == answered {
				held[i] = c
			}
		}
		if !slices.Contains(held, nil) {
			return held
		}
	}
	s.Fatalf("of %v not all were met: %v", targets, held)
	return nil
}

// leadsToTargets covers rule L16: the VIP's port is not the task's, two tasks have one
// address, and what is not declared is refused, the targets' own numbers included. A
// client may be a task of the service itself.
func leadsToTargets(s *stage) {
	a, b, c := target{0, 80}, target{0, 443}, target{2, 80}
	s.each(func(s *stage, v variant) {
		to := netip.AddrPortFrom(s.vip(v.six), offered)
		s.program(s.mapped(to, v.proto, map[target]uint32{a: 2, b: 1, c: 1}))
		for _, from := range s.w.places() {
			s.wantTargets(from, v.proto, to, map[target]int{a: 4, b: 2, c: 2})
			for _, undeclared := range []uint16{80, 443} {
				s.refused(client{place: from}, v.proto, netip.AddrPortFrom(to.Addr(), undeclared))
			}
		}
	})
}

// leadsToTargetOfHost covers rule L16: a task in the network of the host, at a port that
// the host gave it.
func leadsToTargetOfHost(s *stage) {
	s.each(func(s *stage, v variant) {
		to, host := netip.AddrPortFrom(s.vip(v.six), 9), netip.AddrPortFrom(s.w.node(v.six), portOfHost)
		svc := s.mapped(to, v.proto, map[target]uint32{{1, 443}: 1})
		svc.Backends = append(svc.Backends, lb.Backend{Addr: host, Weight: 1})
		slices.SortFunc(svc.Backends, func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) })
		s.program(svc)
		for _, from := range s.w.places() {
			met := map[netip.AddrPort]int{}
			for range 4 {
				a, err := s.answer(client{place: from}, v.proto, to)
				if err != nil {
					s.Fatalf("%s: %v", from, err)
				}
				met[a.backend]++
			}
			if met[host] != 2 || len(met) != 2 {
				s.Errorf("%s was answered by %v, want two of the host", from, met)
			}
		}
	})
}

// drainsTarget covers rules L5 and L16: of two tasks at one address one goes. It drains,
// and what is left of it is cut; the other one, with the same address, is not touched.
func drainsTarget(s *stage) {
	goes, stays := target{0, 80}, target{0, 443}
	s.eachOf(state.TCP, func(s *stage, v variant) {
		to := netip.AddrPortFrom(s.vip(v.six), offered)
		for _, from := range s.w.places() {
			s.program(s.mapped(to, v.proto, map[target]uint32{goes: 1, stays: 1}))
			held := s.hold(from, v.proto, to, goes, stays)
			s.program(s.mapped(to, v.proto, map[target]uint32{goes: 0, stays: 1}))
			s.wantTargets(from, v.proto, to, map[target]int{stays: 4})
			for i, x := range []target{goes, stays} {
				if got := s.asksTarget(held[i]); got != s.place(x, v.six) {
					s.Errorf("a connection of %s to %v went on with %s", from, x, got)
				}
			}
			s.program(s.mapped(to, v.proto, map[target]uint32{stays: 1}))
			if a, err := held[0].ask(); !errors.Is(err, syscall.ECONNRESET) {
				s.Errorf("after the drain %s got an answer of %v, %v; want a reset", from, a.backend, err)
			}
			if got := s.asksTarget(held[1]); got != s.place(stays, v.six) {
				s.Errorf("the connection of %s to the task that stays went on with %s", from, got)
			}
		}
	})
}

// movesUDPOfTarget covers rules L5 and L16: UDP leaves a target at once, and only that one.
func movesUDPOfTarget(s *stage) {
	goes, stays := target{0, 80}, target{0, 443}
	s.eachOf(state.UDP, func(s *stage, v variant) {
		to := netip.AddrPortFrom(s.vip(v.six), offered)
		for _, from := range s.w.places() {
			s.program(s.mapped(to, v.proto, map[target]uint32{goes: 1, stays: 1}))
			held := s.hold(from, v.proto, to, goes, stays)
			s.program(s.mapped(to, v.proto, map[target]uint32{stays: 1, {1, 80}: 1}))
			if got := s.asksTarget(held[0]); got == s.place(goes, v.six) {
				s.Errorf("after its target went, %s is still answered by %s", from, got)
			}
			if got := s.asksTarget(held[1]); got != s.place(stays, v.six) {
				s.Errorf("the target of %s that stays went to %s", from, got)
			}
		}
	})
}

// sticksToTarget covers rule L16: a client stays with a task, not only with its address.
func sticksToTarget(s *stage) {
	targets := map[target]uint32{{0, 80}: 1, {0, 443}: 1, {1, 80}: 1, {1, 443}: 1}
	for _, settings := range []lb.Service{{Scheduler: "wrr", Affinity: time.Hour}, {Scheduler: "sh"}} {
		s.each(func(s *stage, v variant) {
			svc := s.mapped(netip.AddrPortFrom(s.vip(v.six), offered), v.proto, targets)
			svc.Scheduler, svc.Affinity = settings.Scheduler, settings.Affinity
			s.program(svc)
			met := map[netip.AddrPort]bool{}
			for i := range 16 {
				var first netip.AddrPort
				for try := range 3 {
					a, err := s.answer(client{place: container, address: i + 1}, v.proto, address(svc))
					if err != nil {
						s.Fatal(err)
					}
					if try == 0 {
						first = a.backend
					}
					if a.backend != first {
						s.Errorf("client %d went from %s to %s", i, first, a.backend)
					}
				}
				met[first] = true
			}
			if len(met) < 3 {
				s.Errorf("with %s 16 clients met %v only", svc.Scheduler, met)
			}
		})
	}
}

// listens states that a task of a service listens there, at a port of its service.
func (d *daemon) listens(id string, x target, protos ...state.Proto) state.Change {
	e := state.Endpoint{
		ID: id, Service: "every", Weight: 1,
		IP4: d.w.backend(x.backend, false), IP6: d.w.backend(x.backend, true),
	}
	for _, proto := range protos {
		e.Ports = append(e.Ports, state.Port{Number: offered, Target: x.port, Proto: proto})
	}
	return lbtest.Task(&e)
}

// settledTargets waits until the kernel leads to these targets, by weight.
func (d *daemon) settledTargets(to netip.AddrPort, proto state.Proto, weights map[target]uint32) {
	d.Helper()
	want := d.mapped(to, proto, weights)
	within(d.T, func() error {
		st, err := d.b.Status(d.Context())
		for _, one := range st.Services {
			if one.Key == want.Key && one.Actual != nil && slices.Equal(one.Actual.Backends, want.Backends) {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("the kernel does not hold %+v: %+v", want, st.Services))
	})
}

// changesTarget covers rules L5, L12 and L16: a task listens elsewhere from now on, beside
// one of its service that declares another port and so gets nothing here. New connections
// find the new target, none is lost, and what is connected drains.
func changesTarget(s *stage) {
	d := s.daemon()
	before, after, other := target{0, 80}, target{0, 443}, target{1, 80}
	vips := map[bool]netip.Addr{}
	for _, six := range s.w.families() {
		vips[six] = d.vip(six)
	}
	d.commit(lbtest.VIPs("every", vips[false], vips[true], 1), lbtest.Settings("every", state.Settings{Drain: time.Hour}),
		d.listens("changes", before, state.TCP, state.UDP),
		d.serves(other.backend, state.Port{Number: port, Proto: state.TCP}))
	held := map[variant]conn{}
	for _, v := range s.variants() {
		to := netip.AddrPortFrom(vips[v.six], offered)
		d.settledTargets(to, v.proto, map[target]uint32{before: 1})
		held[v] = s.hold(remote, v.proto, to, before)[0]
	}
	lost := s.keepsConnecting(netip.AddrPortFrom(vips[false], offered))
	d.commit(d.listens("changes", after, state.TCP, state.UDP))
	for _, v := range s.variants() {
		to, want := netip.AddrPortFrom(vips[v.six], offered), map[target]uint32{after: 1, before: 0}
		left := before
		if v.proto == state.UDP {
			delete(want, before)
			left = after
		}
		d.settledTargets(to, v.proto, want)
		s.wantTargets(remote, v.proto, to, map[target]int{after: 3})
		if got := s.asksTarget(held[v]); got != s.place(left, v.six) {
			s.Errorf("%s: what was connected went on with %s, want %v", v, got, left)
		}
	}
	lost("while the task changed its target")
	d.stop()
	d.start() // and again from the kernel's own tables
	for _, v := range s.eachProto(state.TCP) {
		to := netip.AddrPortFrom(vips[v.six], offered)
		d.settledTargets(to, v.proto, map[target]uint32{after: 1, before: 0})
		if got := s.asksTarget(held[v]); got != s.place(before, v.six) {
			s.Errorf("%s: after a restart the connection went on with %s", v, got)
		}
	}
}

// eachProto are the variants of a protocol.
func (s *stage) eachProto(proto state.Proto) []variant {
	return slices.DeleteFunc(s.variants(), func(v variant) bool { return v.proto != proto })
}
