package state

import (
	"cmp"
	"fmt"
	"net/netip"
)

// This file owns the definition of a network as a value.

// NetworkDef is the definition of a network: its VIP pools and its birth. It
// is carried verbatim by every participant (V6).
type NetworkDef struct {
	Name    string
	Subnet4 netip.Prefix // IPv4 VIP pool; the zero Prefix: none
	Subnet6 netip.Prefix // IPv6 VIP prefix, at most /64; the zero Prefix: none
	Birth   uint64       // Lamport time of the creation
}

// Validate reports the first thing that is wrong with d, as a *FieldError.
func (d *NetworkDef) Validate() error {
	if err := CheckName(d.Name); err != nil {
		return err
	}
	if !d.Subnet4.IsValid() && !d.Subnet6.IsValid() {
		return fieldError("subnet", fmt.Errorf("network %q needs a VIP pool; give --subnet CIDR or --subnet6 CIDR", d.Name))
	}
	for _, pool := range []struct {
		field  string
		prefix netip.Prefix
		family Family
	}{{"subnet", d.Subnet4, IPv4}, {"subnet6", d.Subnet6, IPv6}} {
		if !pool.prefix.IsValid() {
			continue
		}
		if err := checkPool(pool.prefix, pool.family); err != nil {
			return fieldError(pool.field, err)
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

// older orders definitions of one name: by birth, then by pool, so that every
// node has the same order (V6).
func (d *NetworkDef) older(o *NetworkDef) int {
	return cmp.Or(cmp.Compare(d.Birth, o.Birth), d.Subnet4.Addr().Compare(o.Subnet4.Addr()),
		cmp.Compare(d.Subnet4.Bits(), o.Subnet4.Bits()), d.Subnet6.Addr().Compare(o.Subnet6.Addr()),
		cmp.Compare(d.Subnet6.Bits(), o.Subnet6.Bits()))
}

func (d *NetworkDef) pools() [2]netip.Prefix { return [2]netip.Prefix{d.Subnet4, d.Subnet6} }

func (d *NetworkDef) samePools(o *NetworkDef) bool { return d.pools() == o.pools() }
