package pool

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// How packets come to a pool (L2). Two routing rules and a route in a table of
// their own, so that a pool cannot take what is the host's, whatever it is:
//
//	108: to POOL lookup main suppress_prefixlength LEN-1    every connected or more specific route wins
//	109: to POOL lookup 109
//	table 109: local POOL dev lo src NODE mtu MTU                   before it a default or less specific route would
//
// The kernel's own table of local addresses comes before both.
const (
	hostRulePreference = 108
	poolRulePreference = 109
	poolTable          = 109
)

// way is what there is of the way to one pool.
type way struct {
	route    bool // in poolTable
	hostRule bool
	poolRule bool
	old      bool // a route in the kernel's own table, as versions before this one made it
	src      netip.Addr
	mtu      int // of the route; 0: that of the loopback device
}

// complete reports whether the way is as this version makes it.
func (w way) complete() bool { return w.route && w.hostRule && w.poolRule && !w.old }

// ways returns what is there of ours, by pool.
func (rt *routes) ways() (map[netip.Prefix]way, error) {
	all := map[netip.Prefix]way{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if err := rt.readRoutes(family, all); err != nil {
			return nil, nftconn.Explain("list local routes", err)
		}
		if err := rt.readRules(family, all); err != nil {
			return nil, nftconn.Explain("list routing rules", err)
		}
	}
	return all, nil
}

func (rt *routes) readRoutes(family int, all map[netip.Prefix]way) error {
	for _, table := range []int{unix.RT_TABLE_LOCAL, poolTable} {
		list, err := rt.listRoutes(family, &rtnl.Route{Table: table, Protocol: routeProtocol})
		if err != nil {
			return err
		}
		for _, r := range list {
			p, ok := poolOf(r)
			if !ok {
				continue
			}
			w := all[p.Prefix]
			if table == poolTable {
				w.route, w.src, w.mtu = true, p.Src, r.MTU
			} else {
				w.old = true
			}
			if !w.src.IsValid() {
				w.src = p.Src
			}
			all[p.Prefix] = w
		}
	}
	return nil
}

func (rt *routes) readRules(family int, all map[netip.Prefix]way) error {
	list, err := rt.conn.Routes.RuleListFiltered(family, nil, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a kernel without that family, or without rules
	}
	if err != nil {
		return err
	}
	for _, r := range list {
		p, ok := prefixOf(r.Dst)
		if !ok || r.Protocol != routeProtocol {
			continue
		}
		w := all[p]
		w.hostRule = w.hostRule || r.Priority == hostRulePreference && r.Table == unix.RT_TABLE_MAIN &&
			r.SuppressPrefixlen == p.Bits()-1
		w.poolRule = w.poolRule || r.Priority == poolRulePreference && r.Table == poolTable
		all[p] = w
	}
	return nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits), ok && size > 0
}

// routingRules returns the two rules of a pool, the host's first.
func routingRules(pool netip.Prefix) [2]*rtnl.Rule {
	host, own := rtnl.NewRule(), rtnl.NewRule()
	for _, r := range []*rtnl.Rule{host, own} {
		r.Dst, r.Family, r.Protocol = ipNet(pool), familyOf(pool.Addr()), routeProtocol
	}
	host.Priority, host.Table, host.SuppressPrefixlen = hostRulePreference, unix.RT_TABLE_MAIN, pool.Bits()-1
	own.Priority, own.Table = poolRulePreference, poolTable
	return [2]*rtnl.Rule{host, own}
}

// set leads packets to the pool: first what makes no difference by itself,
// and last what did it in older versions is taken away.
func (rt *routes) set(p lb.Pool) error {
	if err := rt.setRoute(p); err != nil {
		return err
	}
	for _, r := range routingRules(p.Prefix) {
		if err := rt.conn.Routes.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return explainRule(p.Prefix, err)
		}
	}
	return rt.delOldRoute(p.Prefix)
}

// explainRule says what a kernel lacks that cannot do it.
func explainRule(pool netip.Prefix, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("%w: kernel has no policy routing (routing rule of pool %s: %w); it needs "+
			"CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES",
			lb.ErrUnsupported, pool, err)
	}
	return nftconn.Explain(fmt.Sprintf("routing rule of pool %s", pool), err)
}

// remove takes away what there is of the way to a pool, in the opposite order.
func (rt *routes) remove(pool netip.Prefix) error {
	errs := []error{rt.delOldRoute(pool)}
	both := routingRules(pool)
	for _, r := range []*rtnl.Rule{both[1], both[0]} {
		err := rt.conn.Routes.RuleDel(r)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) &&
			!errors.Is(err, unix.EOPNOTSUPP) {
			errs = append(errs, explainRule(pool, err))
		}
	}
	return errors.Join(append(errs, rt.delRoute(pool, poolTable))...)
}

// delOldRoute takes away the route that older versions made.
func (rt *routes) delOldRoute(pool netip.Prefix) error { return rt.delRoute(pool, unix.RT_TABLE_LOCAL) }

// Routed returns the pools whose routes are there.
func routed(ways map[netip.Prefix]way) map[netip.Prefix]lb.Pool {
	pools := map[netip.Prefix]lb.Pool{}
	for prefix, w := range ways {
		if w.route {
			pools[prefix] = lb.Pool{Prefix: prefix, Src: w.src}
		}
	}
	return pools
}

// check compares the ways to the pools with what is there.
func (rt *routes) check(pools map[netip.Prefix]lb.Pool) ([]lb.Finding, error) {
	ways, err := rt.ways()
	if err != nil {
		return nil, err
	}
	found := lb.Compare(&lb.Table{Pools: routed(ways)}, &lb.Table{Pools: pools})
	for prefix := range pools {
		w := ways[prefix]
		if want, err := rt.routeMTU(pools[prefix]); err != nil {
			return found, err
		} else if w.route && w.mtu != want {
			found = append(found, lb.Finding{
				Area: lb.AreaRoute, Kind: lb.FindingChanged, What: lb.PoolRoute(lb.Pool{Prefix: prefix}),
				Found: fmt.Sprintf("mtu %d", w.mtu), Want: fmt.Sprintf("mtu %d", want),
			})
		}
		for _, c := range []struct {
			there      bool
			preference int
		}{{w.hostRule, hostRulePreference}, {w.poolRule, poolRulePreference}} {
			if !c.there {
				found = append(found, lb.Finding{
					Area: lb.AreaRule, Kind: lb.FindingMissing,
					What: fmt.Sprintf("routing rule %d of pool %s", c.preference, prefix),
				})
			}
		}
	}
	for prefix, w := range ways {
		_, ours := pools[prefix]
		switch {
		case w.old:
			found = append(found, lb.Finding{
				Area: lb.AreaRule, Kind: lb.FindingExtra,
				What: fmt.Sprintf("route of pool %s in table local", prefix),
			})
		case !ours && !w.route:
			found = append(found, lb.Finding{
				Area: lb.AreaRule, Kind: lb.FindingExtra,
				What: fmt.Sprintf("routing rules of pool %s", prefix),
			})
		}
	}
	return found, nil
}
