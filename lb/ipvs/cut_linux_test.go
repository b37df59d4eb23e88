package ipvs

import (
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/state"
)

// Rule L5: what conntrack knows of a removed backend is forgotten, so that IPVS
// balances the next packet anew.
func TestRemovalCutsConnections(t *testing.T) {
	_, h, d := setup(t)
	apply(t, d, lb.Diff(lb.NewTable(), sample(), lb.Policy{}))
	k := lb.Key{VIP: netip.MustParseAddr("10.96.0.1"), Port: 53, Proto: state.UDP}
	gone := lb.Backend{Addr: netip.MustParseAddrPort("10.0.0.1:53")}
	apply(t, d, []lb.Op{{Kind: lb.DelBackend, Key: k, Backend: gone}})
	if want := (conntrack.Connections{Service: k, Backend: gone.Addr}); len(h.cut) != 1 || h.cut[0] != want {
		t.Errorf("cut %v, want %v", h.cut, want)
	}
}
