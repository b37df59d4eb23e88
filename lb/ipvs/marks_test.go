package ipvs

import (
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
	"meshd/state"
)

// Marks keep off the bits that kube-proxy masquerades and drops by, are told
// from others' by their first byte, and are all different.
func TestMarksKeepOffOthersBits(t *testing.T) {
	m, seen := newMarks(65536), map[uint32]bool{}
	a := netip.MustParseAddr("10.96.0.1")
	for range 65536 {
		id, ok := m.take(lb.Key{VIP: a, Proto: state.TCP})
		if !ok || id.Mark>>24 != 0x6d || id.Mark&0xc000 != 0 || seen[id.Mark] || !m.ours(id.Mark) {
			t.Fatalf("mark %#x of %s: there %v, again %v, ours %v", id.Mark, a, ok, seen[id.Mark], m.ours(id.Mark))
		}
		seen[id.Mark] = true
		a = a.Next()
	}
	if id, ok := m.take(lb.Key{VIP: a, Proto: state.TCP}); ok {
		t.Errorf("one too many: %#x", id.Mark)
	}
	for _, others := range []uint32{0, 1, 0x4000, 0x6d004000, 0x6d008001, 0x6e000000, 0x6d040000, 1 << 31} {
		if m.ours(others) {
			t.Errorf("%#x is taken for ours", others)
		}
	}
}

// A mark is free again when its service is gone, whoever gave it.
func TestMarksOfOlderVersions(t *testing.T) {
	m, k := newMarks(2), lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Proto: state.TCP}
	m.adopt(map[lb.Key]uint32{k: 0x6d00c001})
	if id, ok := m.id(k); !ok || id != genl.ByMark(genl.IPv4, 0x6d00c001) || !m.hands(id.Mark) {
		t.Errorf("%+v, %v", id, ok)
	}
	m.release(k)
	if id, ok := m.take(k); !ok || id.Mark&0xc000 != 0 {
		t.Errorf("%+v, %v", id, ok)
	}
}
