package state

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// elder orders networks by age: by birth, then by name, so that every node has
// the same order.
func elder(a, b *NetworkDef) int {
	return cmp.Or(cmp.Compare(a.Birth, b.Birth), strings.Compare(a.Name, b.Name))
}

// pooled is one pool of one network.
type pooled struct {
	pool netip.Prefix
	def  *NetworkDef
}

// overlaps returns, for each network whose pools touch those of an older one,
// the oldest such. Pools are prefixes, so of two that touch, one holds the
// other: one pass over the sorted pools finds them all, however many there are.
func overlaps(defs map[string]NetworkDef) map[string]string {
	var all []pooled
	for _, d := range defs {
		for _, p := range d.pools() {
			if p.IsValid() {
				all = append(all, pooled{p, &d})
			}
		}
	}
	slices.SortFunc(all, func(a, b pooled) int {
		return cmp.Or(a.pool.Addr().Compare(b.pool.Addr()), cmp.Compare(a.pool.Bits(), b.pool.Bits()), elder(a.def, b.def))
	})
	oldest := map[string]*NetworkDef{}
	meet := func(d, o *NetworkDef) {
		if o == nil || elder(o, d) >= 0 {
			return
		}
		if was := oldest[d.Name]; was == nil || elder(o, was) < 0 {
			oldest[d.Name] = o
		}
	}
	// Down: the oldest of those that hold a pool, or equal it. Up: the oldest of
	// those that it holds.
	over, within := make([]*NetworkDef, len(all)), make([]*NetworkDef, len(all))
	var path []int
	leave := func(i int) {
		meet(all[i].def, within[i])
		if len(path) > 0 {
			up := path[len(path)-1]
			within[up] = older(within[up], older(within[i], all[i].def))
		}
	}
	for i := range all {
		for len(path) > 0 && !all[path[len(path)-1]].pool.Overlaps(all[i].pool) {
			top := path[len(path)-1]
			path = path[:len(path)-1]
			leave(top)
		}
		if len(path) > 0 {
			up := path[len(path)-1]
			over[i] = older(over[up], all[up].def)
		}
		meet(all[i].def, over[i])
		path = append(path, i)
	}
	for len(path) > 0 {
		top := path[len(path)-1]
		path = path[:len(path)-1]
		leave(top)
	}
	out := make(map[string]string, len(oldest))
	for name, o := range oldest {
		out[name] = o.Name
	}
	return out
}

func older(a, b *NetworkDef) *NetworkDef {
	if a == nil || b != nil && elder(b, a) < 0 {
		return b
	}
	return a
}

// blocked returns which of the networks that this node takes part in must not
// be programmed, since an older one that it takes part in has the addresses
// (V9). What a network elsewhere claims takes nothing from those here.
func blocked(defs map[string]NetworkDef, joined map[string]*Table) map[string]string {
	var mine []NetworkDef
	for name := range joined {
		if d, ok := defs[name]; ok {
			mine = append(mine, d)
		}
	}
	slices.SortFunc(mine, func(a, b NetworkDef) int { return elder(&a, &b) })
	out := map[string]string{}
	free := mine[:0]
next:
	for _, d := range mine {
		for i := range free {
			if free[i].Overlaps(&d) {
				out[d.Name] = free[i].Name
				continue next
			}
		}
		free = append(free, d)
	}
	return out
}
