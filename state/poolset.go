package state

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
)

// This file owns whether an address is in a pool of one of many networks.

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
	s.four, s.six = joinSpans(s.four), joinSpans(s.six)
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

// joinSpans sorts spans and joins those that overlap.
func joinSpans(spans []span) []span {
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

// updatePools gives the tables the pools that there are: those of the networks that
// this node takes part in. A network that it has no part in takes nothing from
// it, whatever its definition says.
func (s *Store) updatePools() {
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
		t.index.bars.pools = pools
		for _, st := range t.streams {
			for _, sl := range st.live {
				t.index.recheckBar(sl)
			}
		}
	}
}
