package state

import (
	"cmp"
	"slices"
	"sort"
)

// This file owns how the members of a published service follow from those of the
// one before it and what has changed.

// member is an endpoint with the class under which it is in Service.Members.
type member struct {
	class Class
	entry *Entry
}

// compareMember orders the members of a service: by class, then by id.
func compareMember(a, b member) int {
	return cmp.Or(cmp.Compare(a.class, b.class), compareID(a.entry, b.entry))
}

// updates reports whether a change leaves an endpoint where it is among the members:
// it says something else under the same id and class.
func (c *change) updates() bool { return c.old != nil && c.cur != nil && c.was == c.now }

// takeMembers fills s with the members of old after the changes.
func (s *Service) takeMembers(old *Service, changes []change) {
	var few [2][8]member // so that the usual publication costs no allocation
	added, gone := few[0][:0], few[1][:0]
	for i := range changes {
		c := &changes[i]
		if c.updates() {
			continue
		}
		if c.cur != nil {
			added = append(added, member{c.now, c.cur})
		}
		if c.old != nil {
			gone = append(gone, member{c.was, c.old})
		}
	}
	w := s.mergeMembers(old, added, gone)
	s.Members = w.list
	for i := range changes {
		if c := &changes[i]; c.updates() {
			at := s.find(member{c.was, c.old})
			w.set(at, c.cur)
			c.cur.place = placeOf(at, s.Members.Len())
		}
	}
}

// mergeMembers writes the members of old without those that are gone and with those
// that are added, which it sorts, and counts them.
func (s *Service) mergeMembers(old *Service, added, gone []member) memberWriter {
	slices.SortFunc(added, compareMember)
	slices.SortFunc(gone, compareMember)
	s.Count = old.Count
	size := old.Members.Len() + len(added) - len(gone)
	w := newMemberWriter(old.Members, size)
	next := 0 // the first of old's members that w has not got yet
	for len(added)+len(gone) > 0 {
		if len(added) == 0 || len(gone) > 0 && compareMember(gone[0], added[0]) <= 0 {
			i := old.find(gone[0])
			s.Count[gone[0].class]--
			w.copy(next, i)
			next, gone = i+1, gone[1:]
			continue
		}
		m := added[0]
		i := max(old.search(m), next) // next where it takes the place of one with its id
		s.Count[m.class]++
		w.copy(next, i)
		m.entry.place = placeOf(w.n, size)
		w.append(m.entry)
		next, added = i, added[1:]
	}
	w.copy(next, old.Members.Len())
	return w
}

// search returns the place of a member, or the place where it would be.
func (s *Service) search(m member) int {
	from := 0
	for c := range m.class {
		from += s.count(c)
	}
	return from + sort.Search(s.count(m.class), func(i int) bool {
		return compareID(s.Members.At(from+i), m.entry) >= 0
	})
}

// place is where an endpoint was among the members of its service when it was put
// there, as a share of them in units of 2^-32. Others come and go, so it is a hint:
// exact where endpoints are only updated, and near where they come and go all over.
type place uint32

// placeOf returns the place of the i-th of n members: the middle of its share.
func placeOf(i, n int) place { return place((2*uint64(i) + 1) << 31 / uint64(n)) }

// in returns which of n members is at the place.
func (p place) in(n int) int { return int(uint64(p) * uint64(n) >> 32) }

// nearby is how far from its place an endpoint is looked for before it is searched
// by its id, which means to look at other endpoints' ids in cold memory.
const nearby = 16

// find returns where a member is. It must be one.
func (s *Service) find(m member) int {
	n := s.Members.Len()
	at := m.entry.place.in(n)
	if s.Members.At(at) == m.entry {
		return at
	}
	for i := max(at-nearby, 0); i < min(at+nearby, n); i++ {
		if s.Members.At(i) == m.entry {
			return i
		}
	}
	return s.search(m)
}
