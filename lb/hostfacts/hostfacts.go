// Package hostfacts decides whether a host can serve a VIP pool without losing
// something that it already has or needs (rule L9 of docs/DESIGN.md). It is pure:
// Facts say what addresses, routes and servers a network namespace has, and Conflicts
// returns those that a pool would take away. The facts are read by lb/hostwatch.
package hostfacts

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Facts are what a network namespace is and needs. The zero value is a host with
// nothing that a pool could conflict with. Values are immutable once they have been
// handed out.
type Facts struct {
	// Unknown says why the host could not be read; empty: it was. No pool is safe on a
	// host that is not known.
	Unknown string
	// Allowed are the ranges in which pools may lie; empty means DefaultPools.
	Allowed   []netip.Prefix
	Addresses []Address // of all devices
	Routes    []Route   // that others made
	Points    []Point   // single addresses that must stay reachable
}

// Address is an address of a device of this namespace.
type Address struct {
	Addr     netip.Addr
	Device   string
	Loopback bool // of the loopback device: packets of other hosts do not get there
}

// Route is a route that others made, in any routing table.
type Route struct {
	Prefix netip.Prefix
	Device string // empty: none, as for a blackhole
	// Connected reports whether the route's addresses are neighbours on the device, so
	// that any of them may be a machine.
	Connected bool
	// Rule is the preference, as "50", of a routing rule of others that leads to the
	// route and comes before the rules of pools; empty: there is none. Such a route
	// takes a pool's packets even if it is a default route.
	Rule string
}

// Point is one address that the host talks to.
type Point struct {
	Addr netip.Addr
	What string // what it is, as "default gateway", "name server", "node x2"
}

// Kind says what a pool conflicts with.
type Kind string

// The kinds of conflicts.
const (
	KindUnknown Kind = "unknown" // the host could not be read
	KindBounds  Kind = "bounds"  // the pool is outside of what the host allows
	KindAddress Kind = "address" // an address of the host is in it
	KindRoute   Kind = "route"   // a route of the host is in it, or it is in a connected one
	KindPoint   Kind = "point"   // an address that the host talks to is in it
	KindPool    Kind = "pool"    // an older network's pool overlaps it
)

// Conflict is one thing of the host that a pool conflicts with.
type Conflict struct {
	Pool   netip.Prefix
	Kind   Kind
	Device string // of an address or a route; empty: none
	What   string // for people, as "route 10.77.0.0/24 of device eth0"
}

// String formats the conflict for people.
func (c Conflict) String() string { return fmt.Sprintf("pool %s: %s", c.Pool, c.What) }

// DefaultPools returns the ranges in which pools may lie if the configuration does not
// say: those that have no owner on the internet. Loopback, link-local, multicast and
// public addresses are in none of them.
func DefaultPools() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fc00::/7"),
	}
}

// Conflicts returns what a pool conflicts with, the most informative first, and nil if
// the host can serve it:
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
	l := conflictList{pool: pool}
	if f.Unknown != "" {
		l.add(KindUnknown, "", "the addresses and routes of this host are not known: "+f.Unknown)
	}
	if !withinRanges(pool, f.Allowed) {
		l.add(KindBounds, "", "it is not within the pools that this host allows; see --pools")
	}
	for _, r := range f.Routes {
		if conflicts(r, pool) {
			l.add(KindRoute, r.Device, r.String())
		}
	}
	for _, a := range f.Addresses {
		if pool.Contains(a.Addr) {
			l.add(KindAddress, a.Device, fmt.Sprintf("address %s of device %s", a.Addr, a.Device))
		}
	}
	for _, p := range f.Points {
		if pool.Contains(p.Addr) {
			l.add(KindPoint, "", fmt.Sprintf("%s %s", p.What, p.Addr))
		}
	}
	return l.found
}

// MaxConflicts bounds the conflicts of one pool, since a host may have a hundred
// thousand routes.
const MaxConflicts = 8

// conflictList collects the conflicts of one pool, each once.
type conflictList struct {
	pool  netip.Prefix
	found []Conflict
}

// add adds a conflict, unless it is known or there are too many.
func (l *conflictList) add(kind Kind, device, what string) {
	c := Conflict{Pool: l.pool, Kind: kind, Device: device, What: what}
	if len(l.found) < MaxConflicts && !slices.Contains(l.found, c) {
		l.found = append(l.found, c)
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

// conflicts reports whether a pool conflicts with a route.
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

// withinRanges reports whether a pool lies in one of the ranges as a whole.
func withinRanges(pool netip.Prefix, ranges []netip.Prefix) bool {
	if len(ranges) == 0 {
		ranges = DefaultPools()
	}
	return slices.ContainsFunc(ranges, func(r netip.Prefix) bool {
		return r.Bits() <= pool.Bits() && r.Contains(pool.Addr())
	})
}

// OnLoopback reports whether an address is one of the loopback device: packets to it
// stay on the host.
func (f *Facts) OnLoopback(a netip.Addr) bool {
	return slices.ContainsFunc(f.Addresses, func(o Address) bool { return o.Loopback && o.Addr == a })
}

// HasAddress reports whether an address is the host's.
func (f *Facts) HasAddress(a netip.Addr) bool {
	return slices.ContainsFunc(f.Addresses, func(o Address) bool { return o.Addr == a })
}

// Sort puts the facts in order and removes repeats, so that equal hosts have equal
// facts. It changes f.
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

// sortedUnique sorts the list in place, and returns it without repeats.
func sortedUnique[T comparable](list []T, by func(a, b T) int) []T {
	slices.SortFunc(list, by)
	return slices.Compact(list)
}

// Equal reports whether the facts of two hosts, both sorted, are the same.
func (f *Facts) Equal(o *Facts) bool {
	return f.Unknown == o.Unknown && slices.Equal(f.Allowed, o.Allowed) && slices.Equal(f.Addresses, o.Addresses) &&
		slices.Equal(f.Routes, o.Routes) && slices.Equal(f.Points, o.Points)
}

// With returns sorted facts with these allowed ranges and additional points. It does
// not change f.
func (f *Facts) With(allowed []netip.Prefix, points ...Point) Facts {
	g := *f
	g.Allowed = allowed
	g.Points = slices.Concat(f.Points, points)
	g.Sort()
	return g
}
