package pool

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// writePools replaces the elements of the pool sets in one transaction.
func (g *guard) writePools(pools map[netip.Prefix]lb.Pool) error {
	c := g.conn.Nftables
	for i, set := range g.pool {
		c.FlushSet(set)
		var elems []nftables.SetElement
		for _, p := range outermost(pools) {
			if nftconn.FamilyIndex(p.Addr()) != i {
				continue
			}
			elems = append(elems, poolElements(p)...)
		}
		if len(elems) == 0 {
			continue
		}
		if err := c.SetAddElements(set, elems); err != nil {
			return fmt.Errorf("set %s: %w", set.Name, err)
		}
	}
	return nftconn.Explain("write pools", g.conn.Commit())
}

// poolElements returns the interval of a prefix.
func poolElements(p netip.Prefix) []nftables.SetElement {
	elems := []nftables.SetElement{{Key: p.Addr().AsSlice()}}
	if end := lastAddr(p).Next(); end.IsValid() {
		elems = append(elems, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return elems
}

// outermost returns the prefixes that lie in no other, sorted.
func outermost(pools map[netip.Prefix]lb.Pool) []netip.Prefix {
	all := slices.SortedFunc(maps.Keys(pools), func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	out := all[:0]
	for _, p := range all {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

func lastAddr(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// check compares the set of the pools, which guard and masquerade use.
func (g *guard) check(i int, pools map[netip.Prefix]lb.Pool) ([]lb.Finding, error) {
	elems, err := g.conn.Nftables.GetSetElements(g.pool[i])
	if err != nil {
		return nil, nftconn.Explain("read the pools back", err)
	}
	have := map[string]bool{}
	for _, e := range elems {
		have[boundary(e)] = true
	}
	var missing []string
	for _, p := range outermost(pools) {
		if nftconn.FamilyIndex(p.Addr()) != i {
			continue
		}
		there := true
		for _, e := range poolElements(p) {
			there = there && have[boundary(e)]
			delete(have, boundary(e))
		}
		if !there {
			missing = append(missing, p.String())
		}
	}
	filler := nftables.SetElement{Key: make([]byte, nftconn.Families[i].Size), IntervalEnd: true} // nft's own
	delete(have, boundary(filler))
	set := fmt.Sprintf("set pool of nftables table %s %s", nftconn.FamilyName(i), tableName)
	var found []lb.Finding
	if len(missing) > 0 {
		found = append(found, lb.Finding{
			Area: lb.AreaSet, Kind: lb.FindingMissing, What: set,
			Want: strings.Join(missing, ", "),
		})
	}
	if len(have) > 0 {
		found = append(found, lb.Finding{
			Area: lb.AreaSet, Kind: lb.FindingExtra, What: set + " (more)",
			Found: "an interval with a boundary at " + strings.Join(slices.Sorted(maps.Keys(have)), ", "),
		})
	}
	return found, nil
}

// boundary names the start or the end of an interval.
func boundary(e nftables.SetElement) string {
	a, _ := netip.AddrFromSlice(e.Key)
	if e.IntervalEnd {
		return "end " + a.String()
	}
	return a.String()
}
