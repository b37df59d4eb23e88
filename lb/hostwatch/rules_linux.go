package hostwatch

import (
	"errors"
	"net/netip"
	"strconv"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb/hostfacts"
)

// ruleGroups are the groups of messages about routing rules (rtnetlink(7)).
const ruleGroups = unix.RTMGRP_IPV4_RULE | 1<<(unix.RTNLGRP_IPV6_RULE-1)

// ownPreference is the preference of the rule that leads to a pool (lb/nft).
const ownPreference = 109

// rule is a routing rule of others that comes before those of the pools and applies to
// every packet to some addresses.
type rule struct {
	preference int
	table      int
	to         netip.Prefix
	suppressed int // routes with at most so many bits are skipped; -1: none is
}

// readRules reads the rules before those of pools, whose routes are used instead of a
// pool's. Rules for certain senders, marks, devices or users are left out, since it
// is not known which packets they apply to.
func (r *reading) readRules(ask *rtnl.Handle, family int) error {
	r.rulesAhead = r.rulesAhead[:0]
	list, err := ask.RuleListFiltered(family, nil, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // the kernel lacks the family, or routing rules
	}
	if err != nil {
		return err
	}
	for i := range list {
		o := &list[i]
		if o.Priority > ownPreference || o.Protocol == ownProtocol || o.Table == unix.RT_TABLE_LOCAL || o.Goto >= 0 ||
			selective(o) {
			continue
		}
		to, ok := prefixOf(o.Dst)
		if !ok {
			to = allAddresses(family)
		}
		if o.Table == unix.RT_TABLE_UNSPEC { // blackhole, unreachable, prohibit
			r.keepRoute(hostfacts.Route{Prefix: to, Rule: strconv.Itoa(o.Priority)})
			continue
		}
		r.rulesAhead = append(r.rulesAhead, rule{
			preference: o.Priority, table: o.Table, to: to, suppressed: o.SuppressPrefixlen,
		})
	}
	return nil
}

// selective reports whether a rule looks at more than the destination.
func selective(o *rtnl.Rule) bool {
	return o.Src != nil || o.Mark != 0 || o.Mask != nil || o.Tos != 0 || o.TunID != 0 || o.IifName != "" ||
		o.OifName != "" || o.Invert || o.Dport != nil || o.Sport != nil || o.IPProto != 0 || o.UIDRange != nil
}

// allAddresses returns the prefix of all addresses of a family.
func allAddresses(family int) netip.Prefix {
	if family == unix.AF_INET6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// addDiverted keeps a route to which a rule before those of pools leads, for the
// addresses that both have.
func (r *reading) addDiverted(route *rtnl.Route) {
	if len(r.rulesAhead) == 0 || isOurs(route) || route.Type == unix.RTN_THROW {
		return
	}
	for _, rule := range r.rulesAhead {
		p, ok := prefixOf(route.Dst)
		if !ok {
			p = allAddresses(route.Family)
		}
		if route.Table != rule.table || p.Bits() <= rule.suppressed || !p.Overlaps(rule.to) {
			continue
		}
		if rule.to.Bits() > p.Bits() {
			p = rule.to
		}
		r.keepRoute(hostfacts.Route{
			Prefix: p.Masked(), Device: r.devices[route.LinkIndex].name,
			Rule: strconv.Itoa(rule.preference),
		})
	}
}
