package mesh

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
)

// accept adds rules to chains of others that drop connections to VIPs, where the
// configuration allows it. What is remembered of a chain is added together,
// so that a firewall that was loaded anew gets all of it back. It reports whether
// it added any.
func (h *hostView) accept(ctx context.Context, lets []hostcheck.AcceptRule) (added bool) {
	n := h.n
	if n.cfg.Firewall != "accept" {
		return false
	}
	// What is not ours is not ours to open.
	lets = slices.DeleteFunc(lets, func(l hostcheck.AcceptRule) bool { return !l.VIPs })
	removed := h.takeBack(ctx)
	n.sysctls.AddRules(lets)
	for _, group := range hostmend.ByChain(n.sysctls.Rules()) {
		if !slices.ContainsFunc(lets, func(l hostcheck.AcceptRule) bool { return l.ChainID() == group[0].ChainID() }) {
			continue
		}
		did, err := hostmend.Accept(ctx, group)
		why := ""
		if err != nil {
			why = err.Error()
		}
		if h.firewalls.Set("firewall "+group[0].ChainID(), why) && err != nil {
			n.log.Warn("a rule cannot be added to a firewall", "chain", group[0].ChainID(), "error", err)
		}
		if did {
			added = true
			n.lookout.Fixed("added "+group[0].ChainID(), func(before int) {
				n.log.Warn("rules are added to a firewall, since firewall: accept allows it; meshd cleanup removes them", "chain",
					group[0].ChainID(), "rules", ruleTexts(group), "times_before", before)
			})
		}
	}
	return added || removed
}

// takeBack removes the rules that let through pools which this host does not serve
// any more: the addresses may be somebody else's tomorrow. It reports whether it
// removed any. Until the balancer knows its pools, nothing is taken back.
func (h *hostView) takeBack(ctx context.Context) (removed bool) {
	n := h.n
	if !n.balancing.Ready() {
		return false
	}
	served := n.balancing.Pools()
	gone := func(l hostcheck.AcceptRule) bool {
		return slices.ContainsFunc(l.Pools, func(p netip.Prefix) bool { _, ok := served[p]; return !ok })
	}
	for _, group := range hostmend.ByChain(n.sysctls.Rules()) {
		old := slices.DeleteFunc(slices.Clone(group), func(l hostcheck.AcceptRule) bool { return !gone(l) })
		if len(old) == 0 {
			continue
		}
		if err := hostmend.RevokeSome(ctx, old, slices.DeleteFunc(slices.Clone(group), gone)); err != nil {
			n.log.Debug("a rule cannot be taken back from a firewall", "chain", group[0].ChainID(), "error", err)
			continue
		}
		n.sysctls.RemoveRules(old)
		n.lookout.Fixed("taken back "+group[0].ChainID(), func(before int) {
			n.log.Info("rules for pools that are not served any more are taken back from a firewall",
				"chain", group[0].ChainID(), "rules", ruleTexts(old), "times_before", before)
		})
		removed = true
	}
	return removed
}

func ruleTexts(lets []hostcheck.AcceptRule) (all []string) {
	for _, l := range lets {
		all = append(all, strings.Join(l.Match, " "))
	}
	return all
}

// removeRules removes our rules from chains of others.
func (c *Cleaned) removeRules(ctx context.Context, lets []hostcheck.AcceptRule, dry bool) (err error) {
	for _, group := range hostmend.ByChain(lets) {
		if !hostmend.Accepted(ctx, group) {
			continue
		}
		c.PutBack = append(c.PutBack, "firewall: rules in chain "+group[0].ChainID())
		if !dry {
			err = errors.Join(err, hostmend.Revoke(ctx, group))
		}
	}
	return err
}
