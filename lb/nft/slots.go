package nft

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"

	"meshd/lb"
)

// A service's slots are its backends, repeated by weight. The kernel picks a
// slot by a counter (round robin) or by a hash of the client's address.

// maxSlots bounds the slots of a weighted service that has fewer backends.
const maxSlots = 1024

// hashed reports whether the service picks by the client's address.
func hashed(s *lb.Service) bool {
	switch s.Scheduler {
	case "sh", "mh", "dh":
		return true
	}
	return s.Affinity > 0
}

// assignSlots returns the slots of a service. Where the old slots allow it,
// they stay where they are, so that few elements change.
func assignSlots(s *lb.Service, old []netip.AddrPort) []netip.AddrPort {
	var live []lb.Backend
	for _, b := range s.Backends {
		if b.Weight > 0 {
			live = append(live, b)
		}
	}
	switch {
	case len(live) == 0:
		return nil
	case hashed(s):
		return maglev(live)
	}
	counts, total := shares(live)
	if total == len(live) {
		return evenSlots(live, old)
	}
	return weightedSlots(live, counts, total)
}

// shares turns weights into numbers of slots: divided by their greatest common
// divisor, or scaled down to about maxSlots in total, at least one each.
func shares(live []lb.Backend) (counts []int, total int) {
	divisor, sum := 0, 0
	for _, b := range live {
		divisor, sum = gcd(divisor, int(b.Weight)), sum+int(b.Weight)
	}
	limit := max(maxSlots, len(live))
	counts = make([]int, len(live))
	for i, b := range live {
		counts[i] = int(b.Weight) / divisor
		if sum/divisor > limit {
			counts[i] = max(1, (int(b.Weight)*limit+sum/2)/sum)
		}
		total += counts[i]
	}
	return counts, total
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// evenSlots gives each backend one slot, its old one where possible.
func evenSlots(live []lb.Backend, old []netip.AddrPort) []netip.AddrPort {
	missing := make(map[netip.AddrPort]bool, len(live))
	for _, b := range live {
		missing[b.Addr] = true
	}
	slots := make([]netip.AddrPort, len(live))
	for i := range slots {
		if i < len(old) && missing[old[i]] {
			slots[i] = old[i]
			delete(missing, old[i])
		}
	}
	next := 0
	for _, b := range live {
		if !missing[b.Addr] {
			continue
		}
		for slots[next].IsValid() {
			next++
		}
		slots[next] = b.Addr
	}
	return slots
}

// weightedSlots interleaves the backends (smooth weighted round robin), so
// that a heavy one is not met many times in a row.
func weightedSlots(live []lb.Backend, counts []int, total int) []netip.AddrPort {
	slots := make([]netip.AddrPort, total)
	credit := make([]int, len(live))
	for i := range slots {
		best := 0
		for j := range live {
			credit[j] += counts[j]
			if credit[j] > credit[best] {
				best = j
			}
		}
		credit[best] -= total
		slots[i] = live[best].Addr
	}
	return slots
}

// maglevSizes are the table sizes in use: primes, so that every step is a
// permutation, and few, so that there are few class chains.
var maglevSizes = [...]int{61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749}

// highestSlot bounds what is believed of a slot that is read back.
const highestSlot = 1 << 20

// maglev returns a lookup table in which few slots change when a backend comes
// or goes, the same on every node (Eisenbud et al., NSDI 2016, §3.4). Backends
// beyond half the largest table may get no slot.
func maglev(live []lb.Backend) []netip.AddrPort {
	size := maglevSizes[len(maglevSizes)-1]
	for _, s := range maglevSizes {
		if s >= 8*len(live) {
			size = s
			break
		}
	}
	top := uint32(0)
	for _, b := range live {
		top = max(top, b.Weight)
	}
	walks := make([]walk, len(live))
	for i, b := range live {
		walks[i] = newWalk(b, size)
	}
	return fillTable(walks, size, top)
}

// walk is one backend's permutation of the slots.
type walk struct {
	addr   netip.AddrPort
	weight uint32
	credit uint32
	at     int
	step   int
}

func newWalk(b lb.Backend, size int) walk {
	h := fnv.New64a()
	raw := b.Addr.Addr().As16()
	h.Write(raw[:])
	h.Write(binary.BigEndian.AppendUint16(nil, b.Addr.Port()))
	x := h.Sum64()
	x ^= x >> 33 // finish: FNV's high bits are weak for similar inputs
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return walk{
		addr: b.Addr, weight: b.Weight,
		at:   int(uint32(x) % uint32(size)),
		step: 1 + int(uint32(x>>32)%uint32(size-1)),
	}
}

// fillTable lets the backends take their next free slot in turn, the heaviest
// in every round and lighter ones in proportion.
func fillTable(walks []walk, size int, top uint32) []netip.AddrPort {
	slots := make([]netip.AddrPort, size)
	for free := size; free > 0; {
		for i := range walks {
			w := &walks[i]
			if w.credit += w.weight; w.credit < top || free == 0 {
				continue
			}
			w.credit -= top
			for slots[w.at].IsValid() {
				w.at = (w.at + w.step) % size
			}
			slots[w.at] = w.addr
			free--
		}
	}
	return slots
}
