package pool

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/lb/nftconn"
	"meshd/state"
)

// What is left beside IPVS can be saved and loaded, and means the same.
func TestSavedHelpers(t *testing.T) {
	r := newRig(t)
	h := r.marked()
	for _, p := range []lb.Pool{{Prefix: pool4, Src: node4}, {Prefix: pool6, Src: node6}} {
		must(t, h.SetPool(p))
	}
	var served []lb.Key
	for _, a := range []netip.Addr{vip4, vip6} {
		must(t, h.SetMarks(map[lb.Key]uint32{
			allTCP(a): FirstMark + 1, allUDP(a): FirstMark + 2,
			{VIP: a, Proto: 255}: FirstMark + 3,
		}))
		served = append(served, allTCP(a), lb.Key{VIP: a, Port: 80, Proto: state.UDP})
	}
	must(t, h.Serve(served, nil))
	saved := r.Reload()
	if now := r.NftList(); now != saved {
		t.Errorf("saved\n%s\nloaded\n%s", saved, now)
	}
	again := r.marked()
	if !maps.Equal(again.Marks(), h.Marks()) || fmt.Sprint(again.Served()) != fmt.Sprint(h.Served()) {
		t.Errorf("loaded marks %v and services %v, want %v and %v", again.Marks(), again.Served(), h.Marks(), h.Served())
	}
}

// Rule L1: what a version left whose map of marks has a name that nft does not
// load keeps its marks.
func TestMarksOfAnUnloadableMap(t *testing.T) {
	r := newRig(t)
	old := r.marked()
	marks := map[lb.Key]uint32{allTCP(vip4): FirstMark + 1, allUDP(vip6): FirstMark + 2}
	c := old.Base.conn.Nftables
	for i := range nftconn.Families {
		set := old.marks.old(i)
		must(t, c.AddSet(set, nil))
		for k, mark := range marks {
			if nftconn.FamilyIndex(k.VIP) == i {
				must(t, c.SetAddElements(set, []nftables.SetElement{markElement(k, mark)}))
			}
		}
	}
	must(t, old.Base.conn.Commit())
	looking, err := NewMarked(r.config())
	must(t, err)
	t.Cleanup(func() { looking.Close() })
	if err := looking.Discover(); err != nil || !maps.Equal(looking.Marks(), marks) {
		t.Errorf("looked: marks %v, %v; want %v", looking.Marks(), err, marks)
	}
	next := r.marked()
	if found, err := next.Check(); !maps.Equal(next.Marks(), marks) || err != nil || len(found) > 0 {
		t.Errorf("marks %v, check %v, %v; want marks %v", next.Marks(), found, err, marks)
	}
	r.Reload()
}
