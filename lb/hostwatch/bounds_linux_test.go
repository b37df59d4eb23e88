package hostwatch

import (
	"net"
	"testing"

	rtnl "github.com/vishvananda/netlink"

	"meshd/lb/hostfacts"
)

// What a host may have is bounded, whichever list it is that grows, and beyond the
// bound the reading stops and is none.
func TestReadingsAreBounded(t *testing.T) {
	ip := func(i int) net.IP { return net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)) }
	for name, add := range map[string]func(r *reading, i int){
		"addresses": func(r *reading, i int) {
			r.addAddress(&rtnl.Addr{IPNet: &net.IPNet{IP: ip(i), Mask: net.CIDRMask(32, 32)}})
		},
		"gateways": func(r *reading, i int) { r.addRoute(rtnl.Route{Gw: ip(i + 1)}) },
		"hops": func(r *reading, i int) {
			r.addRoute(rtnl.Route{MultiPath: []*rtnl.NexthopInfo{{Gw: ip(2*i + 1)}, {Gw: ip(2*i + 2)}}})
		},
	} {
		r := reading{facts: &hostfacts.Facts{}}
		for i := range maxAddresses + 10 {
			add(&r, i)
		}
		if !r.tooMuch || len(r.facts.Addresses) > maxAddresses || len(r.facts.Points) > maxGateways {
			t.Errorf("%s: %d addresses and %d gateways, full %v", name, len(r.facts.Addresses), len(r.facts.Points), r.tooMuch)
		}
	}
	r := reading{facts: &hostfacts.Facts{}}
	for range 10 * maxGateways { // one gateway, in the default routes of many tables
		r.addRoute(rtnl.Route{Gw: ip(1)})
	}
	if r.tooMuch || len(r.facts.Points) != 1 {
		t.Errorf("one gateway in many tables: %d, full %v", len(r.facts.Points), r.tooMuch)
	}
}
