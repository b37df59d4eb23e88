package pool

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables"

	"meshd/lb"
)

// Rule L3: marks that somebody changes are found, and made good.
func TestCheckFindsChangedMarks(t *testing.T) {
	r := newRig(t)
	h := r.marked()
	if err := h.SetPool(lb.Pool{Prefix: pool4, Src: node4}); err != nil {
		t.Fatal(err)
	}
	other := netip.MustParseAddr("10.96.0.9")
	if err := h.SetMark(allTCP(vip4), 0x6d000001); err != nil {
		t.Fatal(err)
	}
	v := r.Vandal()
	set, err := v.Nftables.GetSetByName(h.Base.table[0], "marks")
	if err == nil {
		v.Nftables.FlushSet(set)
		err = v.Nftables.SetAddElements(set, []nftables.SetElement{markElement(allUDP(other), 7)})
	}
	v.Must(err)
	found, err := h.Check()
	want := "[mark of 10.96.3.7:all/tcp: missing, want 0x6d000001 mark of 10.96.0.9:all/udp: extra, found 0x7]"
	if got := fmt.Sprint(found); err != nil || got != want {
		t.Errorf("found %s, %v; want %s", got, err, want)
	}
	if err := h.Setup(); err != nil {
		t.Fatal(err)
	}
	if found, err := h.Check(); err != nil || len(found) > 0 {
		t.Errorf("after the repair: %v, %v", found, err)
	}
	if have, err := h.marks.read(0, h.marks.set[0]); err != nil || len(have) != 1 || have[allTCP(vip4)] != 0x6d000001 {
		t.Errorf("marks %v, %v", have, err)
	}
}

// What is left of pools when the routes are gone is in the sets.
func TestDiscover(t *testing.T) {
	r := newRig(t)
	h := r.marked()
	for _, p := range []lb.Pool{{Prefix: pool4, Src: node4}, {Prefix: pool6, Src: node6}} {
		if err := h.SetPool(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.SetMark(allTCP(vip4), 0x6d000001); err != nil {
		t.Fatal(err)
	}
	if err := h.routes.remove(pool4); err != nil {
		t.Fatal(err)
	}
	fresh, err := NewMarked(r.config())
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if err := fresh.Discover(); err != nil {
		t.Fatal(err)
	}
	if !fresh.Owns(vip4) || !fresh.Owns(vip6) || len(fresh.Pools()) != 2 || fresh.Marks()[allTCP(vip4)] != 0x6d000001 {
		t.Errorf("pools %v, marks %v", fresh.Pools(), fresh.Marks())
	}
}
