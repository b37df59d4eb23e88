package state

import (
	"fmt"
	"net/netip"
)

// This file owns which prefixes may be a VIP pool (S17).

// Family is a version of the Internet Protocol.
type Family uint8

// The families, each with its number.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns "IPv4" or "IPv6".
func (f Family) String() string { return fmt.Sprintf("IPv%d", uint8(f)) }

// The sizes that a pool may have, as prefix lengths.
const (
	MinPool4 = 8  // the largest IPv4 pool
	MaxPool4 = 29 // the smallest: six addresses besides network and broadcast
	MinPool6 = 16
	MaxPool6 = 64 // V1: prefix ‖ H64
)

// ValueError says what is wrong with a value and what to write instead. It
// wraps ErrInvalid. The field that holds the value is for the caller to name.
type ValueError struct {
	Problem string
	Hint    string
}

// Error returns the problem and the hint.
func (e *ValueError) Error() string { return e.Problem + "; " + e.Hint }

// Unwrap returns ErrInvalid.
func (e *ValueError) Unwrap() error { return ErrInvalid }

func wrong(hint, format string, args ...any) error {
	return &ValueError{Problem: fmt.Sprintf(format, args...), Hint: hint}
}

// notPools are the ranges whose addresses belong to no host, to many or to every
// one. No pool may touch them.
var notPools = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this host (0.0.0.0/8)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback addresses"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast addresses"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved addresses (240.0.0.0/4)"},
	{netip.MustParsePrefix("::/16"), "loopback and mapped addresses (::/16)"},
	{netip.MustParsePrefix("64:ff9b::/32"), "addresses of NAT64 (64:ff9b::/32)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local addresses"},
	{netip.MustParsePrefix("ff00::/8"), "multicast addresses"},
}

// ParsePool reads the VIP pool of a network, ADDRESS/LENGTH, and checks it.
// The error is a *ValueError.
func ParsePool(s string, f Family) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, wrong("write ADDRESS/LENGTH, for example "+f.examplePool(), "%q is not a CIDR", s)
	}
	return p, checkPool(p, f)
}

func (f Family) examplePool() string {
	if f == IPv4 {
		return "10.9.0.0/16"
	}
	return "fd00:9::/64"
}

// checkPool reports what stands against p as the VIP pool of a network in
// family f, as a *ValueError: the one rule for what a person asks for, a peer
// states and a disk holds. Whether a host takes it is the host's to decide.
func checkPool(p netip.Prefix, f Family) error {
	example := f.examplePool()
	switch {
	case !p.IsValid():
		return wrong("write ADDRESS/LENGTH, for example "+example, "it is not a CIDR")
	case p.Addr().Is4() != (f == IPv4) || p.Addr().Is4In6() || p.Addr().Zone() != "":
		return wrong("for example "+example+"; the other family has a field of its own", "%s is not %s", p, f)
	case p != p.Masked():
		return wrong("write "+p.Masked().String(), "%s has bits set after its prefix", p)
	case f == IPv4 && p.Bits() > MaxPool4:
		return wrong(fmt.Sprintf("use /%d or larger; /24 holds 239 services", MaxPool4), "%s is too small for a pool", p)
	case f == IPv4 && p.Bits() < MinPool4:
		return wrong(fmt.Sprintf("use /%d or smaller", MinPool4), "%s is too large for a pool", p)
	case f == IPv6 && (p.Bits() > MaxPool6 || p.Bits() < MinPool6):
		return wrong(fmt.Sprintf("use a prefix from /%d to /%d", MinPool6, MaxPool6), "%s cannot be a pool", p)
	}
	for _, n := range notPools {
		if p.Overlaps(n.prefix) {
			return wrong("use a private range, for example "+example, "%s holds %s", p, n.what)
		}
	}
	return nil
}

// CheckPoolRange reports what stands against p as a range within which pools are
// taken, as a *ValueError: no pool would fit into it, so that nothing could ever be
// taken there. A range may hold more than a pool does.
func CheckPoolRange(p netip.Prefix) error {
	f, most := IPv6, MaxPool6
	if p.Addr().Is4() {
		f, most = IPv4, MaxPool4
	}
	if p.Bits() > most {
		return wrong(fmt.Sprintf("use /%d or larger", most), "no pool fits into %s", p)
	}
	for _, n := range notPools {
		if n.prefix.Overlaps(p) && n.prefix.Bits() <= p.Bits() {
			return wrong("use a private range, for example "+f.examplePool(), "no pool may be in %s: %s", p, n.what)
		}
	}
	return nil
}
