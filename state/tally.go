package state

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// This file owns which ports and aliases the members of a service declare (S20).

// tally counts how many members state a value.
type tally[T any] struct {
	value T
	n     int
}

// tally counts the ports and aliases of a member in, or out with by = -1.
func (s *serviceState) tally(e *Entry, by int) {
	if e.has&(hasPorts|hasAliases) == 0 || s.crowded {
		return
	}
	e.eachDeclared(
		func(p Port) { s.ports = count(s.ports, p, by, comparePort, clonePort) },
		func(a string) { s.aliases = count(s.aliases, a, by, strings.Compare, strings.Clone) })
	if len(s.ports) > maxDeclared || len(s.aliases) > maxDeclared {
		s.crowded, s.ports, s.aliases = true, nil, nil
	}
}

// eachDeclared calls f with the ports, as the service has them, and g with the
// aliases of an endpoint.
// What it is called with is the entry's.
func (e *Entry) eachDeclared(f func(Port), g func(string)) {
	_ = eachField(e.Body(), func(tag byte, v string) error {
		if p, ok := portOf(tag, v); ok {
			f(p.ofService())
		} else if tag == tagAlias && CheckTaskName(v) == nil {
			g(v)
		}
		return nil
	})
}

// declaresAs reports whether two endpoints declare the same ports and aliases in the same
// order: the usual change is of something else, and then there is nothing to count.
func (e *Entry) declaresAs(o *Entry) bool {
	const declares = hasPorts | hasAliases
	if (e.has^o.has)&declares != 0 {
		return false
	}
	if e.has&declares == 0 {
		return true
	}
	for a, b := e.Body(), o.Body(); ; {
		var one, other string
		one, a = nextDeclared(a)
		other, b = nextDeclared(b)
		if one != other {
			return false
		}
		if one == "" {
			return true
		}
	}
}

// nextDeclared returns the first field of a body that is a port or an alias, as it is
// written, and what follows it; "" if there is none.
func nextDeclared(body string) (field, rest string) {
	for len(body) > 0 {
		n, w := uvarint(body[1:])
		if w <= 0 || n > uint64(len(body)-1-w) {
			break
		}
		end := 1 + w + int(n)
		if tag := body[0]; tag == tagPort || tag == tagAlias {
			return body[:end], body[end:]
		}
		body = body[end:]
	}
	return "", ""
}

func comparePort(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Number, b.Number), strings.Compare(a.Name, b.Name))
}

func clonePort(p Port) Port {
	p.Name = strings.Clone(p.Name)
	return p
}

// count keeps ts sorted. A value with none left stays until tallied sees it.
func count[T any](ts []tally[T], v T, by int, compare func(a, b T) int, clone func(T) T) []tally[T] {
	i, ok := slices.BinarySearchFunc(ts, v, func(t tally[T], v T) int { return compare(t.value, v) })
	if !ok {
		ts = slices.Insert(ts, i, tally[T]{value: clone(v)})
	}
	ts[i].n += by
	return ts
}

// How many ports, and how many aliases, a service has at most, and how many of
// them one owner's tasks can add once there are more: the others' stay, whatever
// one states (S20).
const (
	maxDeclared = 1024
	maxOfOwner  = MaxPorts
)

// declare fills in the ports and aliases of n, old's own slices if they are the
// same. The members of n are known and tallied.
func (s *serviceState) declare(n, old *Service) {
	if s.crowded && !s.survey(n, old) {
		return
	}
	n.Ports, s.ports = tallied(old.Ports, s.ports)
	n.Aliases, s.aliases = tallied(old.Aliases, s.aliases)
}

// survey counts the ports and aliases of the members anew. It returns true if there
// are few enough to be counted. Otherwise it selects: in the order of the members, up
// to a number of values for each owner and in all, and each owner gets its share
// before any gets more.
func (s *serviceState) survey(n, old *Service) (counted bool) {
	s.crowded = false
	for _, e := range n.Members.All() {
		if s.tally(e, 1); s.crowded {
			break
		}
	}
	if !s.crowded {
		return true
	}
	ports, aliases := newSelection(comparePort, clonePort), newSelection(strings.Compare, strings.Clone)
	for _, most := range slices.Compact([]int{share(n.Members), maxOfOwner}) {
		ports.most, aliases.most = most, most
		for _, e := range n.Members.All() {
			o := e.stream.owner
			if e.has&(hasPorts|hasAliases) == 0 || ports.done(o) && aliases.done(o) {
				continue
			}
			e.eachDeclared(func(p Port) { ports.add(o, p) }, func(a string) { aliases.add(o, a) })
		}
	}
	n.Ports, n.Aliases = ports.sorted(old.Ports), aliases.sorted(old.Aliases)
	return false
}

// share returns how many values each owner of members that declare some can add
// so that there is room for all of them.
func share(members Members) int {
	owners := map[NodeID]struct{}{}
	for _, e := range members.All() {
		if e.has&(hasPorts|hasAliases) != 0 {
			owners[e.stream.owner] = struct{}{}
		}
	}
	return min(max(maxDeclared/max(len(owners), 1), 1), maxOfOwner)
}

// selection is some of the values that are stated.
type selection[T comparable] struct {
	values  map[T]struct{}
	of      map[NodeID]int
	most    int // values that one owner can add
	compare func(a, b T) int
	clone   func(T) T
}

func newSelection[T comparable](compare func(a, b T) int, clone func(T) T) *selection[T] {
	return &selection[T]{map[T]struct{}{}, map[NodeID]int{}, maxOfOwner, compare, clone}
}

// done reports whether the selection takes no more values of an owner.
func (s *selection[T]) done(o NodeID) bool {
	return len(s.values) >= maxDeclared || s.of[o] >= s.most
}

func (s *selection[T]) add(o NodeID, v T) {
	if _, ok := s.values[v]; !ok && !s.done(o) {
		s.values[s.clone(v)] = struct{}{}
		s.of[o]++
	}
}

// sorted returns the values; old itself if they are the same.
func (s *selection[T]) sorted(old []T) []T {
	vs := slices.SortedFunc(maps.Keys(s.values), s.compare)
	if slices.Equal(vs, old) {
		return old
	}
	return vs
}

// tallied returns the values that a member states; old itself if they are the same.
func tallied[T comparable](old []T, ts []tally[T]) ([]T, []tally[T]) {
	ts = slices.DeleteFunc(ts, func(t tally[T]) bool { return t.n <= 0 })
	if slices.EqualFunc(old, ts, func(v T, t tally[T]) bool { return v == t.value }) {
		return old, ts
	}
	vs := make([]T, len(ts))
	for i := range ts {
		vs[i] = ts[i].value
	}
	return vs, ts
}
