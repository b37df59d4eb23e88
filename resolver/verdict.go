package resolver

// This file owns the rules of naming (R1–R4): zone.find says what a name stands
// for in a scope. Both paths ask it, and nothing else decides about names. It
// reads views, and makes no records and no text for people.

import (
	"net/netip"
	"slices"
	"strings"

	"meshd/state"
)

// verdict says what a name stands for in a scope. Its text is part of the name
// that was asked for: whoever keeps a verdict longer than the name clears it.
//
// There are three kinds: a name that is found has a form; a name that does not
// exist has a denial; a name that has neither belongs to others and is forwarded.
type verdict struct {
	target
	denied denial

	// waiting: the name is denied, but a network that has not had its first sync
	// may yet bring it (R4). zone.candidates lists them.
	waiting bool

	// rel is the name within the network of target.view, which is the network
	// that was looked in last. Both are empty if there was none.
	rel string

	// Offsets in the name, in bytes: where the owner of the SOA of a negative
	// answer begins, and where the domain does; -1: the name is not under it.
	apex, domainAt int
}

// denial says why a name does not exist and is not forwarded either (R3).
type denial uint8

const (
	notDenied         denial = iota
	deniedUnknown            // no such name in a network of the scope
	deniedNetwork            // the network is not in the scope
	deniedAddress            // a reverse name: an address of ours without a name in the scope
	deniedSingleLabel        // a single label never leaves the node
	deniedSuffix             // its last label is a network of this node
	deniedPrefix             // tasks.<service> and nearest.<service>
	deniedSRV                // _proto.<service> and _port._proto.<service>
	deniedTask               // <service>.<slot>.<task id> of a service in the scope
)

// find says what a lower-case name without its final dot stands for in a scope.
// It does not allocate for names of services, unknown names and those of others.
func (z *zone) find(sc clientScope, name string) verdict {
	if rest, ok := cutDomain(name, strings.TrimSuffix(z.Domain, ".")); ok {
		return z.findQualified(sc, name, rest)
	}
	if _, ok := cutDomain(name, "localhost"); ok {
		return verdict{target: target{form: formLocalhost}, apex: len(name) - len("localhost"), domainAt: -1}
	}
	if p, ok := reverseAddr(name); ok {
		return z.findReverse(sc, name, p)
	}
	return z.findRelative(sc, name)
}

// findQualified finds names under the domain: rest is <name>.<network>.
func (z *zone) findQualified(sc clientScope, name, rest string) (v verdict) {
	v.domainAt = len(name) - (len(z.Domain) - 1)
	v.apex = v.domainAt
	if rest == "" {
		v.form = formDomain
		return v
	}
	rel, network := cutLast(rest)
	view := z.view(sc, network)
	switch {
	case view == nil && rest == "ns":
		v.form = formNameServer
		return v
	case view == nil:
		v.denied = deniedNetwork
		return v
	}
	v.apex = len(rest) - len(network)
	v.rel, v.target = rel, findIn(view, rel)
	if v.form == formNone {
		v.denied, v.waiting = deniedUnknown, !view.Synced()
	}
	return v
}

// findReverse finds the task or service that has an address. A shorter reverse
// name exists if it covers part of a pool.
func (z *zone) findReverse(sc clientScope, name string, p netip.Prefix) verdict {
	v := verdict{domainAt: -1}
	if p.Bits() < p.Addr().BitLen() {
		if z.inPool(p) {
			v.form = formPool
		}
		return v
	}
	v.apex = strings.IndexByte(name, '.') + 1
	names := sc.Networks
	if sc.Host {
		names, _ = z.Source.Networks()
	}
	for _, n := range names {
		view := z.view(sc, n)
		if view == nil {
			continue
		}
		if m := view.ByIP(p.Addr()); m != (state.IPMatch{}) {
			v.target = target{form: formAddress, view: view, address: m, service: m.Service}
			if m.Service == nil {
				v.service = view.Service(m.Endpoint.Group())
			}
			return v
		}
	}
	if z.isOurs(p.Addr()) {
		v.denied = deniedAddress
	}
	return v
}

// findRelative finds <name> in the networks of the scope, in order, then
// <name>.<network>.
func (z *zone) findRelative(sc clientScope, name string) verdict {
	rel, last := cutLast(name)
	v := verdict{apex: len(name) - len(last), domainAt: -1}
	if name == "" {
		return v
	}
	waiting := false
	for i, n := range sc.Networks {
		view := z.Source.View(n)
		if view == nil {
			continue
		}
		if t := findIn(view, name); t.form != formNone {
			v.target, v.rel = t, name
			v.direct = v.direct && i == 0
			return v
		}
		waiting = waiting || !view.Synced()
	}
	if view := z.view(sc, last); view != nil {
		v.rel, v.target = rel, findIn(view, rel)
		if v.direct = false; v.form != formNone {
			return v
		}
	}
	v.denied = z.denyRelative(sc, name, last)
	v.waiting = waiting && v.denied != notDenied
	return v
}

// denyRelative says why an unknown name that is not under the domain must not
// leave this node (R3).
func (z *zone) denyRelative(sc clientScope, name, last string) denial {
	first, rest, _ := strings.Cut(name, ".")
	switch n := labels(name); {
	case n == 1 && !z.ForwardBare:
		return deniedSingleLabel
	case n > 1 && z.Source.View(last) != nil && !slices.Contains(z.SharedSuffixes, last):
		return deniedSuffix
	case n == 2 && (first == "tasks" || first == "nearest"):
		return deniedPrefix
	case n <= 3 && isSRVName(name):
		return deniedSRV
	case n == 3 && z.isTaskName(sc, first, rest):
		return deniedTask
	}
	return notDenied
}

// isSRVName reports whether the name is _proto.<x> or _port._proto.<x>.
func isSRVName(name string) bool {
	port, rest, _ := strings.Cut(name, ".")
	proto, x, _ := strings.Cut(rest, ".")
	_, two := protoOf(port)
	_, three := protoOf(proto)
	return two && x == "" || three && strings.HasPrefix(port, "_")
}

// isTaskName reports whether <service>.<slot>.<id> begins with a service in the
// scope.
func (z *zone) isTaskName(sc clientScope, service, rest string) bool {
	slot, _, _ := strings.Cut(rest, ".")
	if !digits(slot) {
		return false
	}
	for _, n := range sc.Networks {
		if v := z.Source.View(n); v != nil && v.Service(service) != nil {
			return true
		}
	}
	return false
}

// view returns the view of a network in the scope, or nil.
func (z *zone) view(sc clientScope, network string) state.View {
	if !sc.sees(network) {
		return nil
	}
	return z.Source.View(network)
}

// candidates returns the views that may bring a denied name: those among them
// that have not had their first sync.
func (z *zone) candidates(sc clientScope, v *verdict) (views []state.View) {
	if v.domainAt >= 0 {
		return []state.View{v.view}
	}
	for _, n := range sc.Networks {
		if view := z.Source.View(n); view != nil {
			views = append(views, view)
		}
	}
	return views
}

// isOurs reports whether the address belongs to any network of this node,
// whatever the scope: such names are never forwarded (R3).
func (z *zone) isOurs(ip netip.Addr) bool {
	if z.inPool(netip.PrefixFrom(ip, ip.BitLen())) {
		return true
	}
	names, _ := z.Source.Networks()
	for _, n := range names {
		if v := z.Source.View(n); v != nil && v.ByIP(ip) != (state.IPMatch{}) {
			return true
		}
	}
	return false
}

// inPool reports whether a pool of any network of this node contains p.
func (z *zone) inPool(p netip.Prefix) bool {
	names, _ := z.Source.Networks()
	for _, n := range names {
		v := z.Source.View(n)
		if v == nil {
			continue
		}
		def := v.Def()
		for _, pool := range [...]netip.Prefix{def.Subnet4, def.Subnet6} {
			if pool.IsValid() && pool.Bits() <= p.Bits() && pool.Contains(p.Addr()) {
				return true
			}
		}
	}
	return false
}
