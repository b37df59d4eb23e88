package ipvs

import (
	"meshd/lb"
	"meshd/lb/internal/pool"
	"meshd/lb/ipvs/genl"
)

// marks hands out firewall marks to services for all ports. The same number may
// be in use once in each family.
type marks struct {
	count  uint32
	byKey  map[lb.Key]uint32
	byMark map[genl.ID]lb.Key     // the zero Key: of a service without address
	next   map[genl.Family]uint32 // where to look for a free one
}

// A number's lowest bits are those of a mark below the two that pool.MarkBits
// leaves out, the others come behind them.
const (
	lowBits  = 14
	skipped  = 2
	maxMarks = 1 << 22
)

// markOf returns the mark of a number below maxMarks.
func markOf(n uint32) uint32 {
	return pool.FirstMark | n&(1<<lowBits-1) | n>>lowBits<<(lowBits+skipped)
}

// numberOf is the inverse of markOf; ok is false for marks that it never gives.
func numberOf(mark uint32) (n uint32, ok bool) {
	if mark&^pool.MarkBits != pool.FirstMark {
		return 0, false
	}
	bits := mark & pool.MarkBits
	return bits>>(lowBits+skipped)<<lowBits | bits&(1<<lowBits-1), true
}

func newMarks(count uint32) *marks {
	return &marks{count: count, byKey: map[lb.Key]uint32{}, byMark: map[genl.ID]lb.Key{}, next: map[genl.Family]uint32{}}
}

// ours reports whether a mark lies in our range.
func (m *marks) ours(mark uint32) bool {
	n, ok := numberOf(mark)
	return ok && n < m.count
}

// hands reports whether a mark belongs to a service of either family.
func (m *marks) hands(mark uint32) bool {
	return m.byMark[genl.ByMark(genl.IPv4, mark)].VIP.IsValid() || m.byMark[genl.ByMark(genl.IPv6, mark)].VIP.IsValid()
}

// id returns what names a service to the kernel.
func (m *marks) id(k lb.Key) (genl.ID, bool) {
	mark, ok := m.byKey[k]
	return genl.ByMark(genl.FamilyOf(k.VIP), mark), ok
}

// take returns the ID of a service, which gets a free mark if it has none; ok is
// false if all are in use.
func (m *marks) take(k lb.Key) (id genl.ID, ok bool) {
	if id, ok := m.id(k); ok {
		return id, true
	}
	f := genl.FamilyOf(k.VIP)
	for range m.count {
		id = genl.ByMark(f, markOf(m.next[f]))
		m.next[f] = (m.next[f] + 1) % m.count
		if _, taken := m.byMark[id]; !taken {
			m.set(k, id.Mark)
			return id, true
		}
	}
	return genl.ID{}, false
}

func (m *marks) set(k lb.Key, mark uint32) {
	m.release(k)
	m.byKey[k] = mark
	m.byMark[genl.ByMark(genl.FamilyOf(k.VIP), mark)] = k
}

// block keeps a mark from being handed out: somebody's service has it.
func (m *marks) block(id genl.ID) {
	if _, taken := m.byMark[id]; !taken {
		m.byMark[id] = lb.Key{}
	}
}

func (m *marks) unblock(id genl.ID) {
	if k, taken := m.byMark[id]; taken && !k.VIP.IsValid() {
		delete(m.byMark, id)
	}
}

// release gives the mark of a service back.
func (m *marks) release(k lb.Key) {
	if id, ok := m.id(k); ok {
		delete(m.byKey, k)
		delete(m.byMark, id)
		if n, ok := numberOf(id.Mark); ok && n < m.count {
			m.next[id.Family] = min(m.next[id.Family], n)
		}
	}
}

// adopt takes the services' marks that the kernel's map holds. A service that had
// another mark keeps it: it listens to that one.
func (m *marks) adopt(kernel map[lb.Key]uint32) {
	for k, mark := range kernel {
		id := genl.ByMark(genl.FamilyOf(k.VIP), mark)
		if _, known := m.byKey[k]; known {
			continue
		}
		if owner, taken := m.byMark[id]; taken && owner.VIP.IsValid() {
			continue
		}
		m.set(k, mark)
	}
}
