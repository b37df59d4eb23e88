package hostcheck

import (
	"fmt"
	"net/netip"
	"slices"
)

// kubeProxy looks whether kube-proxy, in whatever mode, has addresses of a pool.
func (j *check) checkKubeProxy(pool netip.Prefix) {
	say := func(where string) {
		j.addFinding(Finding{
			Code: KubeProxy, Severity: Fault,
			What: fmt.Sprintf("kube-proxy balances addresses of pool %s (%s): give the mesh's network another pool, outside "+
				"of the cluster's service subnet, and bound what this host takes with --pools", pool, where),
		})
	}
	for i := range j.facts.Devices {
		d := &j.facts.Devices[i]
		if d.Name == "kube-ipvs0" && slices.ContainsFunc(d.Prefixes,
			func(p netip.Prefix) bool { return pool.Contains(p.Addr()) }) {
			say("device kube-ipvs0")
			return
		}
	}
	for i := range j.facts.Chains {
		c := &j.facts.Chains[i]
		if c.Name != "KUBE-SERVICES" && c.Table != "kube-proxy" {
			continue
		}
		for _, r := range c.Rules {
			if slices.ContainsFunc(r.Conditions, func(o Condition) bool { return o.matchesPool(pool) }) {
				say(c.String())
				return
			}
		}
	}
}

// inside reports whether a condition asks for a destination in a pool.
func (c *Condition) matchesPool(pool netip.Prefix) bool {
	return c.Field == Destination && !c.Not && slices.ContainsFunc(c.Spans, func(s Span) bool {
		return pool.Contains(s.First) && pool.Contains(s.Last)
	})
}
