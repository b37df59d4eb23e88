package ipvs

import (
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
)

// Rules L3, L5: a service that declares its ports is not held up by the one for
// all ports that it replaces and that still drains.
func TestPortsDeclaredLater(t *testing.T) {
	k, h, d := setup(t)
	vip := netip.MustParseAddr("10.96.0.2")
	all := lb.Key{VIP: vip}
	before := sample()
	apply(t, d, lb.Diff(lb.NewTable(), before, lb.Policy{}))
	mark := h.marks[vip]
	if mark == 0 || before.Services[all] == nil || len(before.Services[all].Backends) == 0 {
		t.Fatalf("the sample has changed: marks %v", h.marks)
	}
	after := before.Clone()
	delete(after.Services, all)
	declared := *before.Services[web]
	declared.VIP = vip
	after.Services[declared.Key] = &declared
	change := func(want *lb.Table, p lb.Policy) {
		t.Helper()
		got, err := d.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		apply(t, d, lb.Diff(got, want, p))
	}
	change(after, lb.Policy{})
	if _, marked := h.marks[vip]; marked || k.services[genl.ByMark(genl.IPv4, mark)] == nil {
		t.Errorf("draining: marks %v, services %v; want the service, without its mark", h.marks, k.names())
	}
	change(before, lb.Policy{}) // it takes connections again, under its old mark
	if h.marks[vip] != mark {
		t.Errorf("taken back: marks %v", h.marks)
	}
	change(after, lb.Policy{})
	change(after, lb.Policy{Drained: always})
	if _, marked := h.marks[vip]; marked || k.services[genl.ByMark(genl.IPv4, mark)] != nil || k.services[idOf(declared.Key)] == nil {
		t.Errorf("drained: marks %v, services %v", h.marks, k.names())
	}
	if found, err := d.Check(t.Context()); err != nil || len(found) > 0 {
		t.Error(found, err)
	}
	change(before, lb.Policy{Drained: always})
	if h.marks[vip] == 0 {
		t.Errorf("made anew: marks %v", h.marks)
	}
}
