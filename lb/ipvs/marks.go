package ipvs

import (
	"meshd/lb"
	"meshd/lb/ipvs/genl"
)

// marks hands out firewall marks to services for all ports. The same number may
// be in use once in each family.
type marks struct {
	first, count uint32
	byKey        map[lb.Key]uint32
	byMark       map[genl.ID]lb.Key     // the zero Key: of a service without address
	next         map[genl.Family]uint32 // where to look for a free one
}

func newMarks(first, count uint32) *marks {
	return &marks{first: first, count: count, byKey: map[lb.Key]uint32{}, byMark: map[genl.ID]lb.Key{}, next: map[genl.Family]uint32{}}
}

// ours reports whether a mark lies in our range.
func (m *marks) ours(mark uint32) bool { return mark >= m.first && mark-m.first < m.count }

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
		id = genl.ByMark(f, m.first+m.next[f])
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
		if m.ours(id.Mark) {
			m.next[id.Family] = min(m.next[id.Family], id.Mark-m.first)
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
