package state

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestWithdrawnClaimsAreForgotten covers S20: what many claimed and withdrew
// takes no memory, whoever still claims the address.
func TestWithdrawnClaimsAreForgotten(t *testing.T) {
	t.Parallel()
	const most = 5000
	a := netip.MustParseAddr("10.96.0.99")
	v := newVIPTable(NetworkDef{Name: "front", Subnet4: netip.MustParsePrefix("10.96.0.0/16")})
	claim := func(i int) VIPClaim { return VIPClaim{Service: fmt.Sprintf("s%d", i), VIP4: a, Birth: uint64(i)} }
	for i := range most {
		v.add(claim(i), "", func(string) {})
	}
	for i := 2; i < most; i++ { // the best two stay, so that none of these comes to the top
		v.remove(claim(i), func(string) {})
	}
	x := v.byAddr[a]
	if n := len(x.rivals.heap); n > 64 {
		t.Errorf("%d claims are kept for an address that two have", n)
	}
	if got := x.winner(); got != "s0" {
		t.Errorf("%q has the address, not s0", got)
	}
	v.remove(claim(0), func(string) {})
	if x = v.byAddr[a]; x.winner() != "s1" {
		t.Errorf("%q has the address, not s1", x.winner())
	}
}
