package state

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// This file owns which pools of networks touch (V9).

// ByAge orders networks by age, for slices.SortFunc: by birth, then by name, so
// that every node has the same order (V9).
func ByAge(a, b *NetworkDef) int {
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
		return cmp.Or(a.pool.Addr().Compare(b.pool.Addr()), cmp.Compare(a.pool.Bits(), b.pool.Bits()), ByAge(a.def, b.def))
	})
	oldest := map[string]*NetworkDef{}
	meet := func(d, o *NetworkDef) {
		if o == nil || ByAge(o, d) >= 0 {
			return
		}
		if was := oldest[d.Name]; was == nil || ByAge(o, was) < 0 {
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
	if a == nil || b != nil && ByAge(b, a) < 0 {
		return b
	}
	return a
}
