package hostfacts_test

import (
	"fmt"
	"net/netip"

	"meshd/lb/hostfacts"
)

// A pool that contains a subnet of the host would take its neighbours away; a default
// route, or a less specific one over a gateway, is no conflict.
func ExampleConflicts() {
	host := hostfacts.Facts{
		Addresses: []hostfacts.Address{{Addr: netip.MustParseAddr("10.96.7.4"), Device: "eth0"}},
		Routes: []hostfacts.Route{
			{Prefix: netip.MustParsePrefix("10.96.7.0/24"), Device: "eth0", Connected: true},
			{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Device: "eth1"},
		},
	}
	for _, pool := range []string{"10.96.0.0/16", "10.97.0.0/16", "203.0.113.0/24"} {
		conflicts := hostfacts.Conflicts(netip.MustParsePrefix(pool), &host)
		if len(conflicts) == 0 {
			fmt.Println(pool, "can be served")
		}
		for _, c := range conflicts {
			fmt.Println(c)
		}
	}
	// Output:
	// pool 10.96.0.0/16: route 10.96.7.0/24 of device eth0
	// pool 10.96.0.0/16: address 10.96.7.4 of device eth0
	// 10.97.0.0/16 can be served
	// pool 203.0.113.0/24: it is not within the pools that this host allows; see --pools
}
