package ipvs

import (
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
)

// weights returns how many destinations of the kernel take new connections.
func (f *fakeKernel) weights() (live int) {
	for _, s := range f.services {
		for _, d := range s.dests {
			if d.Weight > 0 {
				live++
			}
		}
	}
	return live
}

// Rules L1, L5: what a run left that the next one does not use takes no new
// connections, goes when nobody uses it, and leaves others' services alone.
func TestLeave(t *testing.T) {
	k, h, d := setup(t)
	want := sample()
	apply(t, d, lb.Diff(lb.NewTable(), want, lb.Policy{}))
	theirs := genl.ID{Family: genl.IPv4, Proto: 6, Port: 80, Addr: netip.MustParseAddr("192.0.2.1")}
	if err := k.put(genl.Service{ID: theirs, Scheduler: "rr"}, map[netip.AddrPort]*fakeDest{}); err != nil {
		t.Fatal(err)
	}
	used := idOf(lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: 6})
	for _, dest := range k.services[used].dests {
		dest.active = 1
	}
	next := newFake(t, k, h)
	for round, wantLeft := range []int{4, 1, 1} {
		if left, err := next.Leave(t.Context(), lb.Leaving{}); err != nil || left != wantLeft {
			t.Fatalf("round %d: %d services left, %v; want %d", round, left, err, wantLeft)
		}
		if live := k.weights(); live > 0 || !h.unmarked {
			t.Fatalf("round %d: %d backends take connections; unmarked: %t", round, live, h.unmarked)
		}
	}
	if len(k.services) != 2 || k.services[used] == nil || len(h.cut) == 0 {
		t.Errorf("left: %v; connections cut %v", k.names(), h.cut)
	}
	if left, err := next.Leave(t.Context(), lb.Leaving{Cut: true}); err != nil || left != 0 || k.services[theirs] == nil ||
		len(k.services) != 1 {
		t.Errorf("at the end: %d left, %v: %v", left, err, k.names())
	}
	if len(h.marks) > 0 {
		t.Errorf("marks are left: %v", h.marks)
	}
}
