package hostread_test

import (
	"fmt"
	"net/netip"

	"meshd/lb/hostcheck"
	"meshd/lb/hostread"
)

// What of this host keeps meshd from serving a pool with nftables.
func ExampleOpen() {
	r := hostread.Open()
	defer r.Close()
	facts := r.Read(hostread.Want{})
	needs := hostcheck.Needs{Driver: "nft", Pools: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}}
	for _, f := range hostcheck.Findings(facts, &needs) {
		fmt.Println(f)
	}
}
