package nft

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"meshd/lb/internal/linktest"
)

// vandal is another program that changes rules of ours.
type vandal struct{ *linktest.Vandal }

// delRule deletes the last rule of a chain.
func (v *vandal) delRule(t *nftables.Table, chain string) {
	v.T.Helper()
	list, err := v.Handles(byte(t.Family), t.Name)
	if err != nil || len(list[chain]) == 0 {
		v.T.Fatalf("rules of %s: %v, %v", chain, list, err)
	}
	handle := list[chain][len(list[chain])-1]
	v.Must(v.Nftables.DelRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: chain}, Handle: handle}))
}

// delRoutingRule deletes the rule of a pool that has a preference.
func (v *vandal) delRoutingRule(pool netip.Prefix, preference int) {
	v.T.Helper()
	family := unix.AF_INET
	if pool.Addr().Is6() {
		family = unix.AF_INET6
	}
	rules, err := v.Routes.RuleList(family)
	v.Must(err)
	for i := range rules {
		if r := &rules[i]; r.Priority == preference && r.Dst != nil && r.Dst.String() == pool.String() {
			v.Must(v.Routes.RuleDel(r))
			return
		}
	}
	v.T.Fatalf("no routing rule %d of %s", preference, pool)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
