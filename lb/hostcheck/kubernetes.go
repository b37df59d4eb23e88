package hostcheck

import (
	"fmt"
	"net/netip"
	"slices"
)

// checkKubeProxy checks whether kube-proxy, in any of its modes, has addresses of a
// pool.
func (h *check) checkKubeProxy(pool netip.Prefix) {
	report := func(where string) {
		h.addFinding(Finding{
			Code: KubeProxy, Severity: Fault,
			What: fmt.Sprintf("kube-proxy balances addresses of pool %s (%s): give the mesh's network another pool, outside "+
				"of the cluster's service subnet, and bound what this host takes with --pools", pool, where),
		})
	}
	for i := range h.facts.Devices {
		d := &h.facts.Devices[i]
		if d.Name == "kube-ipvs0" && slices.ContainsFunc(d.Prefixes,
			func(p netip.Prefix) bool { return pool.Contains(p.Addr()) }) {
			report("device kube-ipvs0")
			return
		}
	}
	for i := range h.facts.Chains {
		c := &h.facts.Chains[i]
		if c.Name != "KUBE-SERVICES" && c.Table != "kube-proxy" {
			continue
		}
		for _, r := range c.Rules {
			if slices.ContainsFunc(r.Conditions, func(o Condition) bool { return o.matchesPool(pool) }) {
				report(c.String())
				return
			}
		}
	}
}

// matchesPool reports whether the condition is met by destinations in the pool.
func (c *Condition) matchesPool(pool netip.Prefix) bool {
	return c.Field == Destination && !c.Not && slices.ContainsFunc(c.Spans, func(s Span) bool {
		return pool.Contains(s.First) && pool.Contains(s.Last)
	})
}
