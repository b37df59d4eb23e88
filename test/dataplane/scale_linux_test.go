package dataplane

import (
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/state"
)

// scales: the cost of all this is measured by make bench-lb; here it must work.
func scales(s *stage) {
	if testing.Short() {
		s.Skip("-short")
	}
	const services, backends = 10000, 10
	want := s.table()
	for i := range services {
		vip := netip.AddrFrom4([4]byte{10, 96, byte(100 + i>>8), byte(i)})
		svc := &lb.Service{Key: lb.Key{VIP: vip, Port: port, Proto: state.TCP}, Scheduler: "wrr"}
		for b := range backends {
			a := netip.AddrFrom4([4]byte{10, 200, byte(b), byte(i)})
			svc.Backends = append(svc.Backends, lb.Backend{Addr: netip.AddrPortFrom(a, port), Weight: 1})
		}
		want.Services[svc.Key] = svc
	}
	s.reach(want)
	s.audit(want, "loaded")

	// One that traffic can be seen with, in place of another.
	svc := s.serviceAt(netip.MustParseAddrPort("10.96.120.7:80"), state.TCP, "wrr", 1, 1, 1, 1)
	want.Services[svc.Key] = svc
	s.reach(want)
	s.wantSpread(remote, state.TCP, address(svc), 1, 1, 1, 1)
	s.also(s.serviceAt(address(svc), state.TCP, "wrr", 1, 1, 1))
	s.wantSpread(remote, state.TCP, address(svc), 1, 1, 1)
	want = s.at.Clone()
	s.audit(want, "changed")

	s.restart()
	s.audit(want, "restarted")
	s.wantSpread(ownHost, state.TCP, address(svc), 1, 1, 1)
}

// audit compares the kernel with what should be there.
func (s *stage) audit(want *lb.Table, when string) {
	s.Helper()
	if found, err := s.d.Check(s.Context()); (err != nil || len(found) > 0) && when != "restarted" {
		s.Errorf("%s: check: %v, %v", when, found, err)
	}
	got, err := s.d.Snapshot(s.Context())
	if err != nil {
		s.Fatalf("%s: %v", when, err)
	}
	for i, op := range lb.Diff(got, want, drained) {
		if i < 10 {
			s.Errorf("%s: to do: %s", when, op)
		}
	}
	if len(got.Services) != len(want.Services) {
		s.Errorf("%s: %d services in the kernel, want %d", when, len(got.Services), len(want.Services))
	}
}
