package nft

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meshd/lb"
)

func backendAt(i int, weight uint32) lb.Backend {
	a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
	return lb.Backend{Addr: a, Weight: weight}
}

func backendsAt(weights ...uint32) []lb.Backend {
	var all []lb.Backend
	for i, w := range weights {
		all = append(all, backendAt(i, w))
	}
	return all
}

func tally(slots []netip.AddrPort) map[netip.AddrPort]int {
	n := map[netip.AddrPort]int{}
	for _, a := range slots {
		n[a]++
	}
	return n
}

// Every slot is filled, every backend with weight has its share, none without.
func TestSlotsAreFilledByWeight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(0, 70000), 0, 40).Draw(t, "weights")
		s := &lb.Service{Scheduler: "wrr", Backends: backendsAt(weights...)}
		old := assignSlots(&lb.Service{Backends: backendsAt(rapid.SliceOfN(rapid.Uint32Range(0, 3), 0, 9).Draw(t, "old")...)},
			nil)
		slots := assignSlots(s, old)
		n, sum := tally(slots), 0
		for _, w := range weights {
			sum += int(w)
		}
		for _, b := range s.Backends {
			if (n[b.Addr] > 0) != (b.Weight > 0) {
				t.Fatalf("%s with weight %d has %d of %d slots", b.Addr, b.Weight, n[b.Addr], len(slots))
			}
			fair := float64(b.Weight) * float64(len(slots)) / float64(max(sum, 1))
			if b.Weight > 0 && (float64(n[b.Addr]) > fair+2 || float64(n[b.Addr]) < fair-float64(len(weights))-1) {
				t.Fatalf("%s with weight %d of %d has %d of %d slots", b.Addr, b.Weight, sum, n[b.Addr], len(slots))
			}
		}
		if n[netip.AddrPort{}] > 0 || len(slots) > maxSlots+len(weights) {
			t.Fatalf("%d slots, %d empty", len(slots), n[netip.AddrPort{}])
		}
		if again := assignSlots(s, slots); !slices.Equal(again, slots) {
			t.Fatal("a second look changes the slots")
		}
	})
}

// One backend that comes or goes moves one slot, or that and the last one.
func TestEvenSlotsMoveLittle(t *testing.T) {
	service := func(b []lb.Backend) *lb.Service { return &lb.Service{Scheduler: "wrr", Backends: b} }
	ten := backendsAt(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	slots := assignSlots(service(ten), nil)
	less := assignSlots(service(slices.Delete(slices.Clone(ten), 3, 4)), slots)
	changed := 0
	for i := range less {
		if less[i] != slots[i] {
			changed++
		}
	}
	if changed != 1 || len(less) != 9 {
		t.Errorf("%d slots changed of %d", changed, len(less))
	}
	more := assignSlots(service(append(slices.Clone(ten), backendAt(99, 1))), slots)
	if !slices.Equal(more[:10], slots) {
		t.Error("a new backend moved old ones")
	}
}

// Smooth: a heavy backend is not met many times in a row.
func TestWeightedSlotsInterleave(t *testing.T) {
	slots := assignSlots(&lb.Service{Backends: backendsAt(50, 25, 24)}, nil)
	for i := range slots {
		next := func(n int) netip.AddrPort { return slots[(i+n)%len(slots)] }
		if slots[i] == next(1) && next(1) == next(2) && next(2) == next(3) {
			t.Fatalf("four times in a row at %d: %v", i, slots)
		}
	}
}

// Affinity: few clients move when a backend goes, and all nodes agree.
func TestMaglevMovesFew(t *testing.T) {
	b := backendsAt(slices.Repeat([]uint32{1}, 10)...)
	s := &lb.Service{Affinity: time.Hour, Backends: b}
	full := assignSlots(s, nil)
	s.Backends = slices.Delete(slices.Clone(b), 4, 5)
	less := assignSlots(s, nil)
	if len(full) != len(less) {
		t.Fatalf("%d slots became %d", len(full), len(less))
	}
	moved := 0
	for i := range full {
		if full[i] != b[4].Addr && full[i] != less[i] {
			moved++
		}
	}
	if moved > len(full)/5 {
		t.Errorf("%d of %d slots of other backends moved", moved, len(full))
	}
	for a, n := range tally(full) {
		if n < len(full)/20 || n > len(full)/5 {
			t.Errorf("%s has %d of %d slots", a, n, len(full))
		}
	}
	s.Backends = nil
	for i := range 3000 {
		s.Backends = append(s.Backends, backendAt(i, 1))
	}
	if n := len(tally(assignSlots(s, nil))); n != 3000 {
		t.Errorf("%d of 3000 backends have a slot", n)
	}
}
