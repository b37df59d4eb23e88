package registry

import (
	"fmt"
	"strings"
	"testing"

	"meshd/state"
)

// However many definitions others state, what is said of it stays short, and
// names the node's own networks.
func TestDisputesAreSummedUp(t *testing.T) {
	others := []state.NetworkClaim{}
	for i := range 200 {
		others = append(others, claimOf("net", fmt.Sprintf("10.%d.0.0/16", i+1), 1))
	}
	for i := range 40 {
		for k := range 2 {
			others = append(others, claimOf(fmt.Sprintf("lie%02d", i), fmt.Sprintf("172.%d.0.0/16", 16+k), 1))
		}
	}
	defs := meshOf(t, []state.NetworkClaim{claimOf("net", "10.250.0.0/16", 7)}, others...)
	all := Troubles(defs, []string{"net"})
	text := strings.Join(all, "; ")
	if len(all) != maxTroubles+1 || len(text) > 8000 {
		t.Errorf("%d networks in %d bytes", len(all), len(text))
	}
	if !strings.HasPrefix(text, "network net is 10.250.0.0/16 here;") || !strings.Contains(all[0], " and 196 more") ||
		!strings.Contains(text, "31 more networks") {
		t.Error(text)
	}
}
