package ipvs

import (
	"net/netip"

	"meshd/lb/ipvs/genl"
)

// marks hands out firewall marks to virtual addresses. The same number may be
// in use once in each family.
type marks struct {
	first, count uint32
	byAddr       map[netip.Addr]uint32
	byMark       map[genl.ID]netip.Addr // the zero Addr: of a service without address
	next         map[genl.Family]uint32 // where to look for a free one
}

func newMarks(first, count uint32) *marks {
	return &marks{first: first, count: count, byAddr: map[netip.Addr]uint32{}, byMark: map[genl.ID]netip.Addr{}, next: map[genl.Family]uint32{}}
}

// ours reports whether a mark lies in our range.
func (m *marks) ours(mark uint32) bool { return mark >= m.first && mark-m.first < m.count }

// hands reports whether a mark belongs to an address of either family.
func (m *marks) hands(mark uint32) bool {
	return m.byMark[genl.ByMark(genl.IPv4, mark)].IsValid() || m.byMark[genl.ByMark(genl.IPv6, mark)].IsValid()
}

// id returns what names the service of an address to the kernel.
func (m *marks) id(a netip.Addr) (genl.ID, bool) {
	mark, ok := m.byAddr[a]
	return genl.ByMark(genl.FamilyOf(a), mark), ok
}

// take returns the ID of an address, which gets a free mark if it has none; ok
// is false if all are in use.
func (m *marks) take(a netip.Addr) (id genl.ID, ok bool) {
	if id, ok := m.id(a); ok {
		return id, true
	}
	f := genl.FamilyOf(a)
	for range m.count {
		id = genl.ByMark(f, m.first+m.next[f])
		m.next[f] = (m.next[f] + 1) % m.count
		if _, taken := m.byMark[id]; !taken {
			m.set(a, id.Mark)
			return id, true
		}
	}
	return genl.ID{}, false
}

func (m *marks) set(a netip.Addr, mark uint32) {
	m.release(a)
	m.byAddr[a] = mark
	m.byMark[genl.ByMark(genl.FamilyOf(a), mark)] = a
}

// block keeps a mark from being handed out: somebody's service has it.
func (m *marks) block(id genl.ID) {
	if _, taken := m.byMark[id]; !taken {
		m.byMark[id] = netip.Addr{}
	}
}

func (m *marks) unblock(id genl.ID) {
	if a, taken := m.byMark[id]; taken && !a.IsValid() {
		delete(m.byMark, id)
	}
}

// release gives the mark of an address back.
func (m *marks) release(a netip.Addr) {
	if id, ok := m.id(a); ok {
		delete(m.byAddr, a)
		delete(m.byMark, id)
		if m.ours(id.Mark) {
			m.next[id.Family] = min(m.next[id.Family], id.Mark-m.first)
		}
	}
}

// adopt takes the addresses' marks that the kernel's map holds. An address that
// had another mark keeps it: its service listens to that one.
func (m *marks) adopt(kernel map[netip.Addr]uint32) {
	for a, mark := range kernel {
		id := genl.ByMark(genl.FamilyOf(a), mark)
		if _, known := m.byAddr[a]; known {
			continue
		}
		if owner, taken := m.byMark[id]; taken && owner.IsValid() {
			continue
		}
		m.set(a, mark)
	}
}
