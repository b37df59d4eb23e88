package state

import "net/netip"

// This file owns which addresses a task or a service may have.

// CheckTaskAddr reports what stands against a as the address of a task or of a
// service, as a *ValueError: it must be a unicast address that one host can
// have and another can reach. It is the one rule for what a person asks for, a
// peer states and a disk holds. Loopback addresses pass: whether they are
// served is a setting (S17).
func CheckTaskAddr(a netip.Addr) error {
	const hint = "use an address that other hosts can reach"
	switch {
	case !a.IsValid():
		return wrong("write an address without prefix length or port, for example 10.1.0.7 or fd00::7",
			"it is not an IP address")
	case a.Is4In6():
		return wrong("write "+a.Unmap().String(), "%s is an IPv4 address in IPv6's clothes", a)
	case a.Zone() != "", a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), reserved4(a):
		return wrong(hint, "%s is not a usable unicast address", a)
	}
	return nil
}

// reserved4 reports whether a is in 0.0.0.0/8 or 240.0.0.0/4, the broadcast
// address included: no host has such an address.
func reserved4(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	first := a.As4()[0]
	return first == 0 || first >= 240
}

// BroadcastSubnet returns the subnet whose IPv4 broadcast address a is, among those
// of a host's own addresses, or the zero Prefix.
func BroadcastSubnet(a netip.Addr, own []netip.Prefix) netip.Prefix {
	for _, p := range own {
		if !a.Is4() || !p.Addr().Is4() || p.Bits() > 30 || !p.Contains(a) {
			continue
		}
		if p = p.Masked(); !p.Contains(a.Next()) {
			return p
		}
	}
	return netip.Prefix{}
}
