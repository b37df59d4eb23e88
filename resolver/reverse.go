package resolver

import (
	"net/netip"

	"github.com/miekg/dns"

	"meshd/state"
)

// reverse answers PTR names: a task's address gives its task name, a VIP its
// service, both qualified. An address in a pool of this node that the scope
// does not know is denied here, any other is forwarded.
func (a *answering) reverse(p netip.Prefix) {
	name := fold(a.Name)
	a.apex = name + "."
	if p.Bits() < p.Addr().BitLen() {
		a.reversePart(p)
		return
	}
	a.apex = name[indexDot(name)+1:] + "."
	ip := p.Addr()
	names, _ := a.Source.Networks()
	if !a.Scope.Host {
		names = a.Scope.Networks
	}
	for _, n := range names {
		v := a.view(n)
		if v == nil {
			continue
		}
		if ptr := a.pointer(v, ip); ptr != "" {
			a.step("name", "%s is %s", ip, ptr)
			a.pointTo(ptr)
			return
		}
	}
	if a.isOurs(ip) {
		a.missing(ip.String() + " is in a pool of this node or a task's, and has no name in scope")
		return
	}
	a.step("forward", "%s is not an address of ours", ip)
	a.Forward = true
}

// pointer returns the qualified name of an address in a network, or "".
func (a *answering) pointer(v state.View, ip netip.Addr) string {
	m := v.ByIP(ip)
	switch {
	case m.Service != nil:
		a.useTTL(m.Service)
		return m.Service.Name + "." + v.Network() + "." + a.Domain
	case m.Endpoint != nil:
		ep := m.Endpoint.Endpoint()
		if s := v.Service(ep.Service); s != nil {
			a.useTTL(s)
		}
		return a.taskName(&ep, v.Network())
	}
	return ""
}

func (a *answering) pointTo(name string) {
	if a.Type != dns.TypePTR {
		a.exists(nil)
		return
	}
	a.exists([]dns.RR{&dns.PTR{Hdr: a.header(dns.TypePTR), Ptr: name}})
}

// reversePart answers a reverse name that is not a whole address: an empty
// non-terminal if it lies in a pool of this node.
func (a *answering) reversePart(p netip.Prefix) {
	if a.inPool(p) {
		a.step("name", "part of a pool")
		a.zoneApex()
		return
	}
	a.step("forward", "not in a pool of this node")
	a.Forward = true
}

// isOurs reports whether the address belongs to any network of this node,
// whatever the scope: such names are never forwarded (R3).
func (a *answering) isOurs(ip netip.Addr) bool {
	if a.inPool(netip.PrefixFrom(ip, ip.BitLen())) {
		return true
	}
	names, _ := a.Source.Networks()
	for _, n := range names {
		if v := a.Source.View(n); v != nil && v.ByIP(ip) != (state.IPMatch{}) {
			return true
		}
	}
	return false
}

// inPool reports whether a pool of any network of this node contains p.
func (a *answering) inPool(p netip.Prefix) bool {
	names, _ := a.Source.Networks()
	for _, n := range names {
		v := a.Source.View(n)
		if v == nil {
			continue
		}
		def := v.Def()
		for _, pool := range []netip.Prefix{def.Subnet4, def.Subnet6} {
			if pool.IsValid() && pool.Bits() <= p.Bits() && pool.Contains(p.Addr()) {
				return true
			}
		}
	}
	return false
}

func indexDot(s string) int {
	for i := range len(s) {
		if s[i] == '.' {
			return i
		}
	}
	return len(s) - 1
}
