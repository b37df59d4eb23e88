package ipvs

import (
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
	"meshd/state"
)

// moving is a service for all ports that has declared its ports since.
type moving struct {
	*testing.T

	k             *fakeKernel
	h             *fakePools
	d             *Driver
	tcp, udp      lb.Key
	before, after *lb.Table
	declared      *lb.Service
}

func newMoving(t *testing.T) *moving {
	k, h, d := setup(t)
	vip := netip.MustParseAddr("10.96.0.2")
	m := &moving{
		T: t, k: k, h: h, d: d, tcp: lb.Key{VIP: vip, Proto: state.TCP}, udp: lb.Key{VIP: vip, Proto: state.UDP},
		before: sample(),
	}
	apply(t, d, lb.Diff(lb.NewTable(), m.before, lb.Policy{}))
	for _, key := range []lb.Key{m.tcp, m.udp} {
		if m.h.marks[key] == 0 || m.before.Services[key] == nil || len(m.before.Services[key].Backends) == 0 {
			t.Fatalf("the sample has changed: marks %v", h.marks)
		}
	}
	m.after = m.before.Clone()
	delete(m.after.Services, m.tcp)
	delete(m.after.Services, m.udp)
	declared := *m.before.Services[web]
	declared.VIP = vip
	m.after.Services[declared.Key] = &declared
	m.declared = &declared
	return m
}

func (m *moving) change(want *lb.Table, p lb.Policy) {
	m.Helper()
	got, err := m.d.Snapshot(m.Context())
	if err != nil {
		m.Fatal(err)
	}
	apply(m.T, m.d, lb.Diff(got, want, p))
}

// there reports whether the service of a mark is.
func (m *moving) there(mark uint32) bool { return m.k.services[genl.ByMark(genl.IPv4, mark)] != nil }

// marked reports whether packets to the address get a mark.
func (m *moving) marked() bool { return m.h.marks[m.tcp] != 0 || m.h.marks[m.udp] != 0 }

// Rules L3, L5: a service that declares its ports is not held up by the one for
// all ports that it replaces and that still drains. UDP does not drain.
func TestPortsDeclaredLater(t *testing.T) {
	m := newMoving(t)
	tcp, udp := m.h.marks[m.tcp], m.h.marks[m.udp]
	m.change(m.after, lb.Policy{})
	if m.marked() || !m.there(tcp) || m.there(udp) {
		t.Errorf("draining: marks %v, services %v; want the one for TCP, and no packet marked", m.h.marks, m.k.names())
	}
	m.change(m.before, lb.Policy{}) // it takes connections again, under its old mark
	if m.h.marks[m.tcp] != tcp || m.h.marks[m.udp] == 0 || m.h.marks[parking(m.tcp)] != 0 {
		t.Errorf("taken back: marks %v", m.h.marks)
	}
	m.change(m.after, lb.Policy{})
	m.change(m.after, lb.Policy{Drained: always})
	if m.marked() || len(m.h.marks) != 2 || m.there(tcp) || m.k.services[idOf(m.declared.Key)] == nil {
		t.Errorf("drained: marks %v, services %v", m.h.marks, m.k.names())
	}
	if found, err := m.d.Check(t.Context()); err != nil || len(found) > 0 {
		t.Error(found, err)
	}
	m.change(m.before, lb.Policy{Drained: always})
	if m.h.marks[m.tcp] == 0 || m.h.marks[m.udp] == 0 {
		t.Errorf("made anew: marks %v", m.h.marks)
	}
}

// Rule L1: the next process goes on with such a drain, ends it, or takes the
// service back.
func TestPortsDeclaredBeforeRestart(t *testing.T) {
	for _, back := range []bool{false, true} {
		m := newMoving(t)
		tcp := m.h.marks[m.tcp]
		m.change(m.after, lb.Policy{})
		m.d = newFake(t, m.k, m.h)
		m.change(m.after, lb.Policy{})
		if s := m.d.known.Services[m.tcp]; s == nil || !closing(s) || m.marked() || !m.there(tcp) {
			t.Errorf("after the restart: service %+v, marks %v, services %v", s, m.h.marks, m.k.names())
		}
		if back {
			m.change(m.before, lb.Policy{})
			if m.h.marks[m.tcp] != tcp || m.h.marks[parking(m.tcp)] != 0 || !m.there(tcp) {
				t.Errorf("taken back: marks %v, services %v", m.h.marks, m.k.names())
			}
			continue
		}
		m.change(m.after, lb.Policy{Drained: always})
		if m.there(tcp) || len(m.h.marks) != 2 {
			t.Errorf("drained: marks %v, services %v", m.h.marks, m.k.names())
		}
	}
}

// A service that somebody removed while it drained comes back with a mark.
func TestParkedMarkIsLost(t *testing.T) {
	m := newMoving(t)
	m.change(m.after, lb.Policy{})
	delete(m.k.services, genl.ByMark(genl.IPv4, m.h.marks[parking(m.tcp)]))
	m.change(m.after, lb.Policy{})
	if len(m.h.marks) != 2 {
		t.Errorf("without the service: marks %v", m.h.marks)
	}
	m.change(m.before, lb.Policy{Drained: always})
	if mark := m.h.marks[m.tcp]; mark == 0 || !m.there(mark) {
		t.Errorf("made anew: marks %v, services %v", m.h.marks, m.k.names())
	}
}
