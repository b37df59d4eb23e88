package state

import "net/netip"

// This file owns which addresses a node may have.

// CheckPeerAddr reports what stands against a as the address of a node, as a
// *ValueError. It is the one rule for what the membership, a node's own record,
// a peer's question and the file of peers say.
func CheckPeerAddr(a netip.AddrPort) error {
	const hint = "write IP:PORT, for example 10.1.0.7:7946"
	ip := a.Addr()
	switch {
	case !ip.IsValid():
		return wrong(hint, "it is not an IP address with a port")
	case ip.Is4In6():
		return wrong("write "+netip.AddrPortFrom(ip.Unmap(), a.Port()).String(), "%s is an IPv4 address in IPv6's clothes", a)
	case ip.IsUnspecified(), ip.IsMulticast(), reserved4(ip):
		return wrong(hint, "%s is no address of one host", a)
	case a.Port() == 0:
		return wrong(hint, "%s has no port", a)
	}
	return nil
}
