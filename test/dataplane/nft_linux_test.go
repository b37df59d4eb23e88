package dataplane

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/nft"
)

// nftWorld is lb/nft on a real kernel.
type nftWorld struct{ *kernel }

func (w *nftWorld) name() string { return "nft" }

func (w *nftWorld) newDriver(t *testing.T, log *logBook) lb.Driver {
	t.Helper()
	d, err := nft.New(nft.Config{NetNS: w.box.Path(), Local: w.local, Log: log.logger()})
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// idle implements world: without IPVS, conntrack remembers connections.
func (w *nftWorld) idle(t *testing.T, vip netip.Addr, last func()) {
	w.sysctl(t, "net.netfilter.nf_conntrack_tcp_timeout_established", "1")
	last()
	within(t, func() error {
		n, err := w.conntrack(vip)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d connections to %s are still tracked", n, vip)
		}
		return err
	})
}

func (w *nftWorld) vandals() []vandal {
	return append(w.ruleVandals(),
		vandal{name: "table meshd_nat is deleted", do: func(t *testing.T, _ *lb.Service) {
			w.edit(t, func(c *nftables.Conn) {
				c.DelTable(&nftables.Table{Name: "meshd_nat", Family: nftables.TableFamilyINet})
			})
		}},
		vandal{name: "a service's chains are emptied", do: func(t *testing.T, _ *lb.Service) {
			w.eachChain(t, "meshd_nat", func(c *nftables.Conn, chain *nftables.Chain) {
				if chain.Hooknum == nil {
					c.FlushChain(chain)
				}
			})
		}},
		vandal{name: "a service's element is deleted", do: func(t *testing.T, s *lb.Service) {
			w.deleteElements(t, s, "svc")
		}},
		vandal{name: "a backend's element is deleted", do: func(t *testing.T, s *lb.Service) {
			w.deleteElements(t, s, "eps")
		}},
	)
}

// ruleVandals break the helper rules that both drivers have.
func (k *kernel) ruleVandals() []vandal {
	chain := func(name string) func(t *testing.T, _ *lb.Service) {
		return func(t *testing.T, _ *lb.Service) {
			k.eachChain(t, "meshd", func(c *nftables.Conn, chain *nftables.Chain) {
				if chain.Name == name {
					c.FlushChain(chain)
				}
			})
		}
	}
	return []vandal{
		{name: "the ruleset is flushed", do: func(t *testing.T, _ *lb.Service) {
			k.edit(t, func(c *nftables.Conn) { c.FlushRuleset() })
		}},
		{name: "table meshd is deleted", do: func(t *testing.T, s *lb.Service) {
			k.edit(t, func(c *nftables.Conn) { c.DelTable(&nftables.Table{Name: "meshd", Family: familyOf(s.VIP)}) })
		}},
		{name: "the guard is emptied", do: chain("guard")},
		{name: "the masquerade is deleted", do: chain("masq")},
		{name: "the guard's pools are emptied", do: func(t *testing.T, s *lb.Service) {
			k.edit(t, func(c *nftables.Conn) {
				c.FlushSet(&nftables.Set{Table: &nftables.Table{Name: "meshd", Family: familyOf(s.VIP)}, Name: "pool"})
			})
		}},
		{name: "the local route is deleted", do: func(t *testing.T, _ *lb.Service) {
			routes, err := k.routes()
			must(t, err)
			h, err := k.handle(unix.NETLINK_ROUTE)
			must(t, err)
			defer h.Close()
			for i := range routes {
				must(t, h.RouteDel(&routes[i]))
			}
		}},
		{name: "the routing rules are deleted", do: func(t *testing.T, _ *lb.Service) {
			list, err := k.routingRules()
			must(t, err)
			h, err := k.handle(unix.NETLINK_ROUTE)
			must(t, err)
			defer h.Close()
			for i := range list {
				must(t, h.RuleDel(&list[i]))
			}
		}},
		{name: "the source of the local route is changed", do: func(t *testing.T, _ *lb.Service) {
			routes, err := k.routes()
			must(t, err)
			h, err := k.handle(unix.NETLINK_ROUTE)
			must(t, err)
			defer h.Close()
			for _, r := range routes {
				r.Src = k.host.Gateway.AsSlice()
				if r.Family == unix.AF_INET6 {
					r.Src = k.host.Gateway6.AsSlice()
				}
				must(t, h.RouteReplace(&r))
			}
		}},
		{name: "forwarding is switched off", do: func(t *testing.T, s *lb.Service) {
			key := "net.ipv4.ip_forward"
			if s.VIP.Is6() {
				key = "net.ipv6.conf.all.forwarding"
			}
			must(t, k.box.Sysctl(key, "0"))
		}},
	}
}

func familyOf(a netip.Addr) nftables.TableFamily {
	if a.Is6() {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}

// edit changes the host's nftables in one transaction.
func (k *kernel) edit(t *testing.T, f func(*nftables.Conn)) {
	t.Helper()
	ns, err := netns.GetFromPath(k.box.Path())
	must(t, err)
	defer ns.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	must(t, err)
	f(c)
	must(t, c.Flush())
}

// eachChain edits every chain of our tables of that name.
func (k *kernel) eachChain(t *testing.T, table string, f func(*nftables.Conn, *nftables.Chain)) {
	t.Helper()
	k.edit(t, func(c *nftables.Conn) {
		chains, err := c.ListChains()
		must(t, err)
		for _, chain := range chains {
			if chain.Table.Name == table {
				f(c, chain)
			}
		}
	})
}

// deleteElements deletes one of the service's elements from the maps whose
// names begin like that.
func (k *kernel) deleteElements(t *testing.T, s *lb.Service, maps string) {
	t.Helper()
	k.edit(t, func(c *nftables.Conn) {
		sets, err := c.GetSets(&nftables.Table{Name: "meshd_nat", Family: nftables.TableFamilyINet})
		must(t, err)
		done := false
		for _, set := range sets {
			if done || !strings.HasPrefix(set.Name, maps) {
				continue
			}
			elems, err := c.GetSetElements(set)
			must(t, err)
			elems = slices.DeleteFunc(elems,
				func(e nftables.SetElement) bool { return !bytes.HasPrefix(e.Key, s.VIP.AsSlice()) })
			if len(elems) == 0 {
				continue
			}
			must(t, c.SetDeleteElements(set, []nftables.SetElement{{Key: elems[0].Key}}))
			done = true
		}
		if !done {
			t.Fatalf("no element of %s found", s.VIP)
		}
	})
}

// plantTable makes a table of another program, with a set and a chain.
func (k *kernel) plantTable(t *testing.T) (intact func() error) {
	t.Helper()
	table := &nftables.Table{Name: "somebody", Family: nftables.TableFamilyINet}
	k.edit(t, func(c *nftables.Conn) {
		c.AddTable(table)
		must(t, c.AddSet(&nftables.Set{Table: table, ID: 1, Name: "theirs", KeyType: nftables.TypeIPAddr},
			[]nftables.SetElement{{Key: []byte{10, 96, 0, 1}}}))
		chain := c.AddChain(&nftables.Chain{
			Table: table, Name: "forward", Hooknum: nftables.ChainHookForward,
			Priority: nftables.ChainPriorityFilter, Type: nftables.ChainTypeFilter,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}}})
	})
	t.Cleanup(func() { k.edit(t, func(c *nftables.Conn) { c.DelTable(table) }) })
	return func() (err error) {
		k.edit(t, func(c *nftables.Conn) {
			rules, e1 := c.GetRules(table, &nftables.Chain{Name: "forward", Table: table})
			elems, e2 := c.GetSetElements(&nftables.Set{Table: table, Name: "theirs", KeyType: nftables.TypeIPAddr})
			if err = errors.Join(e1, e2); err == nil && (len(rules) != 1 || len(elems) != 1) {
				err = fmt.Errorf("somebody's table has %d rules and %d elements, want one of each", len(rules), len(elems))
			}
		})
		return err
	}
}

// plantRoute makes a local route of another program.
func (k *kernel) plantRoute(t *testing.T) (intact func() error) {
	t.Helper()
	h, err := k.handle(unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	lo, err := h.LinkByName("lo")
	must(t, err)
	theirs := &rtnl.Route{
		LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: rtnl.SCOPE_HOST,
		Dst: ipNet(netip.MustParsePrefix("192.0.2.0/24")),
	}
	must(t, h.RouteAdd(theirs))
	return func() error {
		list, err := h.RouteListFiltered(unix.AF_INET, theirs, rtnl.RT_FILTER_TABLE|rtnl.RT_FILTER_DST)
		if err == nil && len(list) != 1 {
			err = errors.New("somebody's local route is gone")
		}
		return err
	}
}

func (w *nftWorld) foreigners(t *testing.T) func() error {
	table, route := w.plantTable(t), w.plantRoute(t)
	return func() error { return errors.Join(table(), route()) }
}

func (w *nftWorld) leftovers(t *testing.T) []string { return w.ruleLeftovers(t) }

// ruleLeftovers lists tables and routes of ours.
func (k *kernel) ruleLeftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	k.edit(t, func(c *nftables.Conn) {
		tables, err := c.ListTables()
		must(t, err)
		for _, table := range tables {
			if strings.HasPrefix(table.Name, "meshd") {
				left = append(left, "nftables table "+table.Name)
			}
		}
	})
	routes, err := k.routes()
	must(t, err)
	for _, r := range routes {
		left = append(left, "route "+r.String())
	}
	rules, err := k.routingRules()
	must(t, err)
	for _, r := range rules {
		left = append(left, "routing rule "+r.String())
	}
	return left
}
