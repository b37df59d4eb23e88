// Package hostfacts judges what a host can be asked to do against what it
// already is (rule L9 of docs/DESIGN.md). It is pure: Facts say what addresses,
// routes and servers a network namespace has, and Conflicts says what of that
// stands against a VIP pool. Reading the facts is the work of lb/hostwatch.
package hostfacts

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Facts are what a network namespace is and needs. The zero value knows of
// nothing, so that nothing stands against a pool. Values are immutable once
// they have been handed out.
type Facts struct {
	// Unknown says why the host could not be asked; empty: it was. No pool is
	// safe on a host of which nothing is known.
	Unknown string
	// Allowed bounds what the host takes as pools; empty means DefaultPools.
	Allowed   []netip.Prefix
	Addresses []Address
	Routes    []Route
	Points    []Point // single addresses that must stay reachable
}

// Address is an address of a device of this namespace.
type Address struct {
	Addr     netip.Addr
	Device   string
	Loopback bool // of the loopback device: nobody else's way leads there
}

// Route is a route that others made, in whatever table.
type Route struct {
	Prefix netip.Prefix
	Device string // empty: none, as of a blackhole
	// Connected says that the route's addresses are neighbours on the device,
	// and so each of them may be a machine.
	Connected bool
	// Rule is the preference of a routing rule of others that leads to the route
	// before any pool's, as "50"; empty: none does. Such a route takes a pool's
	// packets even if it is the default one.
	Rule string
}

// Point is one address that the host talks to, and what it is, as
// "default gateway", "name server", "node x2".
type Point struct {
	Addr netip.Addr
	What string
}

// Kind says what stands against a pool.
type Kind string

// The kinds of conflicts.
const (
	KindUnknown Kind = "unknown" // the host could not be asked
	KindBounds  Kind = "bounds"  // the pool is outside of what the host allows
	KindAddress Kind = "address" // an address of the host is in it
	KindRoute   Kind = "route"   // a route of the host is in it, or it is in a connected one
	KindPoint   Kind = "point"   // an address that the host talks to is in it
	KindPool    Kind = "pool"    // an older network's pool overlaps it
)

// Conflict is one thing that stands against a pool.
type Conflict struct {
	Pool   netip.Prefix
	Kind   Kind
	Device string // of addresses and routes; empty: none
	What   string // for people, as "route 10.77.0.0/24 of device eth0"
}

// String formats the conflict for people.
func (c Conflict) String() string { return fmt.Sprintf("pool %s: %s", c.Pool, c.What) }

// DefaultPools returns what a host takes as pools where its configuration does
// not say: ranges that nobody owns on the internet. Loopback, link-local,
// multicast and public addresses are in none of them.
func DefaultPools() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fc00::/7"),
	}
}

// Conflicts returns what stands against a pool, the most telling first, and nil
// if the host can serve it:
//
//   - the pool is not inside one of the allowed ranges;
//   - an address of the host, or one that it talks to, is in the pool;
//   - a route is inside the pool, or equal to it;
//   - a connected route contains the pool;
//   - a routing rule of others takes the pool's packets before its own do.
//
// A route over a gateway that is less specific than the pool is no conflict,
// and neither is a default route: the pool is an exception to them, as any more
// specific route is. At most MaxConflicts are returned.
func Conflicts(pool netip.Prefix, f *Facts) []Conflict {
	j := conflictList{pool: pool}
	if f.Unknown != "" {
		j.add(KindUnknown, "", "the addresses and routes of this host are not known: "+f.Unknown)
	}
	if !withinRanges(pool, f.Allowed) {
		j.add(KindBounds, "", "it is not within the pools that this host allows; see --pools")
	}
	for _, r := range f.Routes {
		if conflicts(r, pool) {
			j.add(KindRoute, r.Device, r.String())
		}
	}
	for _, a := range f.Addresses {
		if pool.Contains(a.Addr) {
			j.add(KindAddress, a.Device, fmt.Sprintf("address %s of device %s", a.Addr, a.Device))
		}
	}
	for _, p := range f.Points {
		if pool.Contains(p.Addr) {
			j.add(KindPoint, "", fmt.Sprintf("%s %s", p.What, p.Addr))
		}
	}
	return j.found
}

// MaxConflicts bounds how many conflicts of one pool are told: a host may have
// a hundred thousand routes.
const MaxConflicts = 8

// judgement collects conflicts without repeats.
type conflictList struct {
	pool  netip.Prefix
	found []Conflict
}

func (j *conflictList) add(kind Kind, device, what string) {
	c := Conflict{Pool: j.pool, Kind: kind, Device: device, What: what}
	if len(j.found) < MaxConflicts && !slices.Contains(j.found, c) {
		j.found = append(j.found, c)
	}
}

// String formats the route for people, as "route 10.77.0.0/24 of device eth0".
func (r Route) String() string {
	text := fmt.Sprintf("route %s", r.Prefix)
	if r.Device != "" {
		text += " of device " + r.Device
	}
	if r.Rule != "" {
		text += ", to which routing rule " + r.Rule + " leads before the pool's own"
	}
	return text
}

// stands reports whether a route stands against a pool.
func conflicts(r Route, pool netip.Prefix) bool {
	switch {
	case !r.Prefix.Overlaps(pool):
		return false
	case r.Rule != "":
		return true
	case r.Prefix.Bits() == 0:
		return false
	}
	return r.Prefix.Bits() >= pool.Bits() || r.Connected
}

// allowed reports whether a pool lies in one of the ranges. Overlaps that are
// no containment are outside.
func withinRanges(pool netip.Prefix, ranges []netip.Prefix) bool {
	if len(ranges) == 0 {
		ranges = DefaultPools()
	}
	return slices.ContainsFunc(ranges, func(r netip.Prefix) bool {
		return r.Bits() <= pool.Bits() && r.Contains(pool.Addr())
	})
}

// Owns reports whether an address is one of the loopback device: what leads
// there stays on the host.
func (f *Facts) OnLoopback(a netip.Addr) bool {
	return slices.ContainsFunc(f.Addresses, func(o Address) bool { return o.Loopback && o.Addr == a })
}

// Has reports whether an address is the host's.
func (f *Facts) HasAddress(a netip.Addr) bool {
	return slices.ContainsFunc(f.Addresses, func(o Address) bool { return o.Addr == a })
}

// Sort puts the facts in order, without repeats, so that equal hosts have equal
// facts.
func (f *Facts) Sort() {
	f.Addresses = sortedUnique(f.Addresses, func(a, b Address) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Device, b.Device))
	})
	f.Routes = sortedUnique(f.Routes, func(a, b Route) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()),
			cmp.Compare(a.Device, b.Device), cmp.Compare(a.Rule, b.Rule))
	})
	f.Points = sortedUnique(f.Points, func(a, b Point) int {
		return cmp.Or(a.Addr.Compare(b.Addr),
			cmp.Compare(a.What, b.What))
	})
}

func sortedUnique[T comparable](list []T, by func(a, b T) int) []T {
	slices.SortFunc(list, by)
	return slices.Compact(list)
}

// Equal reports whether two hosts' facts, sorted, are the same.
func (f *Facts) Equal(o *Facts) bool {
	return f.Unknown == o.Unknown && slices.Equal(f.Allowed, o.Allowed) && slices.Equal(f.Addresses, o.Addresses) &&
		slices.Equal(f.Routes, o.Routes) && slices.Equal(f.Points, o.Points)
}

// With returns the facts with more points, and bounded to these ranges.
func (f *Facts) With(allowed []netip.Prefix, points ...Point) Facts {
	g := *f
	g.Allowed = allowed
	g.Points = slices.Concat(f.Points, points)
	g.Sort()
	return g
}
