package state

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// NetworkDef is the definition of a network: its VIP pools and its birth. It
// is carried verbatim by every participant (V6).
type NetworkDef struct {
	Name    string
	Subnet4 netip.Prefix // IPv4 VIP pool; the zero Prefix: none
	Subnet6 netip.Prefix // IPv6 VIP prefix, at most /64; the zero Prefix: none
	Birth   uint64       // Lamport time of the creation
}

// Validate reports the first thing that is wrong with d, naming the field.
func (d *NetworkDef) Validate() error {
	if err := CheckName(d.Name); err != nil {
		return err
	}
	if !d.Subnet4.IsValid() && !d.Subnet6.IsValid() {
		return invalid("subnet: network %q needs a VIP pool; give --subnet CIDR or --subnet6 CIDR", d.Name)
	}
	for _, pool := range []struct {
		field  string
		prefix netip.Prefix
		family Family
	}{{"subnet", d.Subnet4, IPv4}, {"subnet6", d.Subnet6, IPv6}} {
		if !pool.prefix.IsValid() {
			continue
		}
		if err := CheckPool(pool.prefix, pool.family); err != nil {
			return fmt.Errorf("%s: %w", pool.field, err)
		}
	}
	return nil
}

// Overlaps reports whether the pools of d and o share an address.
func (d *NetworkDef) Overlaps(o *NetworkDef) bool {
	return d.Subnet4.IsValid() && o.Subnet4.IsValid() && d.Subnet4.Overlaps(o.Subnet4) ||
		d.Subnet6.IsValid() && o.Subnet6.IsValid() && d.Subnet6.Overlaps(o.Subnet6)
}

// Contains reports whether a is in one of the pools.
func (d *NetworkDef) Contains(a netip.Addr) bool {
	return d.Subnet4.IsValid() && d.Subnet4.Contains(a) || d.Subnet6.IsValid() && d.Subnet6.Contains(a)
}

// older orders definitions of one name: the oldest birth wins, then the
// lower pool, so that every node picks the same (V6).
func (d *NetworkDef) older(o *NetworkDef) int {
	return cmp.Or(cmp.Compare(d.Birth, o.Birth), d.Subnet4.Addr().Compare(o.Subnet4.Addr()),
		cmp.Compare(d.Subnet4.Bits(), o.Subnet4.Bits()), d.Subnet6.Addr().Compare(o.Subnet6.Addr()),
		cmp.Compare(d.Subnet6.Bits(), o.Subnet6.Bits()))
}

// Networks resolves the carried definitions to the effective one per name and,
// for the names with several, those that lost against it, oldest first. It is a
// pure function of the set of claims (V6): the oldest definition that was not
// removed wins.
func Networks(claims []NetworkClaim) (effective map[string]NetworkDef, conflicts map[string][]NetworkDef) {
	removed := map[string]uint64{} // name → births up to this are withdrawn
	for _, c := range claims {
		if c.Removed {
			removed[c.Name] = max(removed[c.Name], c.Birth)
		}
	}
	byName := map[string][]NetworkDef{}
	for _, c := range claims {
		if !c.Removed && c.Birth > removed[c.Name] {
			byName[c.Name] = append(byName[c.Name], c.NetworkDef)
		}
	}
	effective, conflicts = map[string]NetworkDef{}, map[string][]NetworkDef{}
	for name, defs := range byName {
		slices.SortFunc(defs, func(a, b NetworkDef) int { return a.older(&b) })
		pools := map[[2]netip.Prefix]bool{}
		for _, d := range defs {
			p := [2]netip.Prefix{d.Subnet4, d.Subnet6}
			switch {
			case len(pools) == 0:
				effective[name] = d
			case !pools[p]:
				conflicts[name] = append(conflicts[name], d)
			}
			pools[p] = true
		}
	}
	return effective, conflicts
}
