package state

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Bar says why an endpoint that its owner states is carried, but not shown on
// this node (S18). The zero Bar: it is shown, if its owner lives.
type Bar uint8

// The reasons.
const (
	BarNone     Bar = iota
	BarLoopback     // its address is every host's own
	BarPool         // its address is in the VIP pool of a network that this node takes part in
	BarTwin         // another owner has a task with the same id
	BarPorts        // all its ports are of protocols that this version does not know
)

// String returns the reason in one word, for metrics.
func (b Bar) String() string {
	return [...]string{"none", "loopback", "pool", "id", "ports"}[min(b, BarPorts)]
}

// Barred is an endpoint that is carried, but not shown.
type Barred struct {
	Endpoint *Entry
	Bar      Bar
	Reason   string // for people
}

// Barred returns the endpoints that are carried and not shown although their
// owner lives, by service, id and owner.
func (t *Table) Barred() []Barred {
	out := make([]Barred, 0, len(t.index.barred))
	for e := range t.index.barred {
		if e.stream.status != Dead {
			out = append(out, Barred{Endpoint: e, Bar: e.bar, Reason: t.index.whyBarred(e)})
		}
	}
	slices.SortFunc(out, func(a, b Barred) int {
		return cmp.Or(strings.Compare(a.Endpoint.Group(), b.Endpoint.Group()), compareID(a.Endpoint, b.Endpoint))
	})
	return out
}

func (ix *index) whyBarred(e *Entry) string {
	switch e.bar {
	case BarLoopback:
		return "its address is a loopback address, which is every host's own; allow-loopback-tasks allows them for trials"
	case BarPool:
		for _, a := range e.addrs() {
			if p, ok := ix.pools.find(a); ok {
				return fmt.Sprintf("its address %s is in a VIP pool, %s", a, p)
			}
		}
		return "its address is in a VIP pool"
	case BarTwin:
		if o := ix.addrs.byID(e.Key(), func(o *Entry) bool { return o.Key() == e.Key() }); o != nil {
			return fmt.Sprintf("node %s has a task with the same id, which is served instead", o.Owner())
		}
		return "another node has a task with the same id"
	case BarPorts:
		return "its ports are all of protocols that this version of meshd does not know; without them it would get every " +
			"port of its service's address"
	}
	return ""
}

// barOf judges an endpoint by its ports and addresses.
func (ix *index) barOf(e *Entry) Bar {
	if ix.globals != nil || e.Kind() != KindEndpoint {
		return BarNone
	}
	if e.has&onlyStrange != 0 {
		return BarPorts
	}
	for _, a := range e.addrs() {
		switch {
		case !a.IsValid():
		case !ix.loopback && a.IsLoopback():
			return BarLoopback
		case e.stream.owner == ix.self:
			// What this host has itself outranks a pool: the pool is not programmed here.
		case ix.pools.contains(a):
			return BarPool
		}
	}
	return BarNone
}

// bar records that a listed endpoint is barred; unbar forgets it. Nobody gets to
// one, so that it gives its service no address of its family.
func (ix *index) bar(e *Entry, b Bar) {
	e.bar = b
	e.svc.countFamilies(e, -1)
	ix.barred[e] = struct{}{}
	if b == BarTwin {
		ix.twins[e.Key()] = append(ix.twins[e.Key()], e)
	}
}

func (ix *index) unbar(e *Entry) {
	if e.bar == BarTwin {
		if ts := slices.DeleteFunc(ix.twins[e.Key()], func(o *Entry) bool { return o == e }); len(ts) > 0 {
			ix.twins[e.Key()] = ts
		} else {
			delete(ix.twins, e.Key())
		}
	}
	delete(ix.barred, e)
	e.bar = BarNone
	e.svc.countFamilies(e, 1)
}

// rejudge looks again at the addresses of an endpoint, after the pools changed.
func (ix *index) rejudge(e *Entry) {
	if !e.listed || e.svc == nil {
		return
	}
	b := ix.barOf(e)
	if b == e.bar || b == BarNone && e.bar == BarTwin {
		return
	}
	if e.bar != BarNone {
		ix.unbar(e)
	}
	if b != BarNone {
		ix.bar(e, b)
	}
	ix.reclass(e)
}

// lose bars the endpoint that lost its id to another owner's, and hides it if
// it was shown.
func (ix *index) lose(e *Entry) {
	ix.regain = true
	ix.bar(e, BarTwin)
	ix.reclass(e)
}

// freeID lets the tasks that lost an id compete for it again: the one that had
// it is gone.
func (ix *index) freeID(id string) {
	for _, e := range slices.Clone(ix.twins[id]) {
		if e.shown {
			continue // it has just lost it, and is about to go
		}
		ix.regain = true
		ix.unbar(e)
		ix.reclass(e)
	}
}

// settleIDs makes the endpoints that a service has added known by address and
// id, and leaves out what lost its id to another owner's task; the rest is what
// the service gets and loses.
func (ix *index) settleIDs(s *svc, added, taken []*Entry) (_, _ []*Entry) {
	losers := ix.addrs.put(added)
	if len(losers) == 0 {
		return added, taken
	}
	fresh := make(map[*Entry]bool, len(added))
	for _, e := range added {
		fresh[e] = true
	}
	for _, e := range losers {
		if !fresh[e] && e.svc != s {
			ix.lose(e)
			continue
		}
		ix.bar(e, BarTwin)
		e.hidden, e.shown = true, false
		s.hidden++
		switch {
		case !fresh[e]:
			taken = append(taken, e)
		case e.row > 0:
			ix.removed = append(ix.removed, e)
		}
	}
	return slices.DeleteFunc(added, func(e *Entry) bool { return !e.shown }), taken
}

// freeIDs lets tasks compete for the ids that this publication has freed.
func (ix *index) freeIDs() {
	ix.addrs.look = ix.addrs.look && len(ix.dirty) > 0
	if len(ix.twins) == 0 {
		return
	}
	for _, e := range ix.removed {
		if e.bar != BarTwin {
			ix.freeID(e.Key())
		}
	}
}

// winsID reports which of two owners' tasks with one id is served: the same on
// every node, and no owner's name is better than another's.
func (e *Entry) winsID(o *Entry) bool {
	rank := func(e *Entry) uint64 { return mix64(e.stream.hash ^ idHash(e.Key())) }
	return cmp.Or(cmp.Compare(rank(e), rank(o)), strings.Compare(string(e.Owner()), string(o.Owner()))) < 0
}

// poolSet answers whether an address is in one of some pools. It is immutable;
// a nil one has no pools.
type poolSet struct {
	pools []netip.Prefix
	four  []span // sorted and disjoint
	six   []span // of the upper halves of the addresses
}

// span is a range of addresses, both ends included.
type span struct{ from, to uint64 }

// newPoolSet returns the pools of definitions.
func newPoolSet(defs []NetworkDef) *poolSet {
	s := &poolSet{}
	for _, d := range defs {
		for _, p := range d.pools() {
			if !p.IsValid() {
				continue
			}
			s.pools = append(s.pools, p)
			if from := upper(p.Addr()); p.Addr().Is4() {
				s.four = append(s.four, span{from, from | (1<<(32-p.Bits()) - 1)})
			} else {
				s.six = append(s.six, span{from, from | (1<<(64-p.Bits()) - 1)})
			}
		}
	}
	slices.SortFunc(s.pools, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	s.pools = slices.Compact(s.pools)
	s.four, s.six = join(s.four), join(s.six)
	return s
}

// upper is an IPv4 address, or the upper half of an IPv6 one, as a number.
func upper(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

func join(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
		} else {
			out = append(out, s)
		}
	}
	return out
}

func (s *poolSet) contains(a netip.Addr) bool {
	if s == nil {
		return false
	}
	spans := s.six
	if a.Is4() {
		spans = s.four
	}
	if len(spans) == 0 {
		return false
	}
	v := upper(a)
	i, exact := slices.BinarySearchFunc(spans, v, func(p span, v uint64) int { return cmp.Compare(p.from, v) })
	return exact || i > 0 && v <= spans[i-1].to
}

// find returns the pool that holds an address.
func (s *poolSet) find(a netip.Addr) (netip.Prefix, bool) {
	if s != nil && a.IsValid() {
		for _, p := range s.pools {
			if p.Contains(a) {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}

func (s *poolSet) equal(o *poolSet) bool {
	if s == nil || o == nil {
		return s == o
	}
	return slices.Equal(s.pools, o.pools)
}

// repool tells the tables which pools there are: those of the networks that
// this node takes part in. A network that it has no part in takes nothing from
// it, whatever its definition says.
func (s *Store) repool() {
	var defs []NetworkDef
	for _, name := range slices.Sorted(maps.Keys(s.tables)) {
		defs = append(defs, s.tables[name].index.Def())
	}
	pools := newPoolSet(defs)
	if pools.equal(s.pools) {
		return
	}
	s.pools = pools
	for _, t := range s.tables {
		t.index.pools = pools
		for _, st := range t.streams {
			for _, e := range st.live {
				t.index.rejudge(e)
			}
		}
	}
}
