package nft

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/pool"
	"meshd/state"
)

// Rule L1: whatever somebody changes beside the services is found, told of in
// words, and made good by Setup; what a check finds it does not change.
func TestCheckFindsEveryChange(t *testing.T) {
	r := newRig(t)
	r.four()
	d := r.driver()
	want := table(service(vip4, 80, state.TCP, "10.1.0.2:80", "10.1.0.3:80"), service(vip6, 80, state.TCP, "[fd01::2]:80"))
	r.program(d, want)
	if _, err := d.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := vandal{r.Vandal()}
	helper := func(family nftables.TableFamily) *nftables.Table {
		return &nftables.Table{Name: "meshd", Family: family}
	}
	ours := &nftables.Table{Name: serviceTable, Family: nftables.TableFamilyINet}
	sysctl := func(key, value string) func() {
		return func() {
			r.Node.Do(t, func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
		}
	}
	for _, c := range []struct {
		name, want string
		do         func()
	}{
		{"forwarding off", "sysctl net.ipv4.ip_forward: changed, found 0, want 1", sysctl("net/ipv4/ip_forward", "0")},
		{"IPv6 forwarding off", "sysctl net.ipv6.conf.all.forwarding: changed, found 0, want 1", sysctl("net/ipv6/conf/all/forwarding", "0")},
		{
			"guard rule deleted", "rule 5 of chain guard of nftables table ip meshd: missing",
			func() { v.delRule(helper(nftables.TableFamilyIPv4), "guard") },
		},
		{
			"masquerade deleted", "rule 2 of chain masq of nftables table ip6 meshd: missing",
			func() { v.delRule(helper(nftables.TableFamilyIPv6), "masq") },
		},
		{"a rule in the guard", "rule in chain guard of nftables table ip meshd: extra, found at place 1", func() {
			t4 := helper(nftables.TableFamilyIPv4)
			v.Nftables.InsertRule(&nftables.Rule{
				Table: t4, Chain: &nftables.Chain{Table: t4, Name: "guard"},
				Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}},
			})
			v.Must(nil)
		}},
		{"chain deleted", "chain guard of nftables table ip6 meshd: missing", func() {
			t6 := helper(nftables.TableFamilyIPv6)
			v.Nftables.FlushChain(&nftables.Chain{Table: t6, Name: "guard"})
			v.Nftables.DelChain(&nftables.Chain{Table: t6, Name: "guard"})
			v.Must(nil)
		}},
		{"table deleted", "chain masq of nftables table ip meshd: missing", func() {
			v.Nftables.DelTable(helper(nftables.TableFamilyIPv4))
			v.Must(nil)
		}},
		{"pool out of the set", "set pool of nftables table ip meshd: missing, want 10.96.0.0/16", func() {
			set, err := v.Nftables.GetSetByName(helper(nftables.TableFamilyIPv4), "pool")
			if err == nil {
				v.Nftables.FlushSet(set)
			}
			v.Must(err)
		}},
		{"a range in the set", "set pool of nftables table ip meshd (more): extra, found an interval with a boundary at " +
			"192.0.2.0, end 192.0.2.255", func() {
			set, err := v.Nftables.GetSetByName(helper(nftables.TableFamilyIPv4), "pool")
			if err == nil {
				err = v.Nftables.SetAddElements(set, []nftables.SetElement{
					{Key: []byte{192, 0, 2, 0}}, {Key: []byte{192, 0, 2, 255}, IntervalEnd: true},
				})
			}
			v.Must(err)
		}},
		{"route deleted", "local route of pool 10.96.0.0/16: missing, want source address 10.1.0.1", func() {
			v.Must(v.Routes.RouteDel(&rtnl.Route{
				Dst: ipNet(pool4), Table: 109, Type: unix.RTN_LOCAL,
				Scope: rtnl.SCOPE_HOST,
			}))
		}},
		{"rule for the host deleted", "routing rule 108 of pool 10.96.0.0/16: missing", func() { v.delRoutingRule(pool4, 108) }},
		{"rule for the pool deleted", "routing rule 109 of pool fd96::/64: missing", func() { v.delRoutingRule(pool6, 109) }},
		{"route of an older version", "route of pool 10.96.0.0/16 in table local: extra", func() {
			v.Must(v.Routes.RouteAdd(&rtnl.Route{
				Dst: ipNet(pool4), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: rtnl.SCOPE_HOST,
				Protocol: 109, LinkIndex: 1,
			}))
		}},
		{"refusal deleted", "rule 2 of chain refuse_output of nftables table ip6 meshd: missing", func() { v.delRule(helper(nftables.TableFamilyIPv6), "refuse_output") }},
		{
			"source changed", "local route of pool 10.96.0.0/16: changed, found no source address, want source address 10.1.0.1",
			func() {
				v.Must(v.Routes.RouteReplace(&rtnl.Route{
					Dst: ipNet(pool4), Table: 109, Type: unix.RTN_LOCAL, Scope: rtnl.SCOPE_HOST, Protocol: 109, LinkIndex: 1,
				}))
			},
		},
		{"service rule deleted", "rule 2 of chain services4 of nftables table inet meshd_nat: missing", func() { v.delRule(ours, "services4") }},
		{"hook deleted", "rule 2 of chain prerouting of nftables table inet meshd_nat: missing", func() { v.delRule(ours, "prerouting") }},
		{"class rule deleted", "rule 1 of chain rr4_2_0 of nftables table inet meshd_nat: missing", func() { v.delRule(ours, "rr4_2_0") }},
		{"service table deleted", "chain rr4_2_0 of nftables table inet meshd_nat: missing", func() {
			v.Nftables.DelTable(ours)
			v.Must(nil)
		}},
	} {
		if found, err := d.Check(t.Context()); err != nil || len(found) > 0 {
			t.Fatalf("before %s: %v, %v", c.name, found, err)
		}
		c.do()
		for range 2 {
			found, err := d.Check(t.Context())
			if err != nil || !slices.ContainsFunc(found,
				func(f lb.Finding) bool { return strings.HasPrefix(f.String(), c.want) }) {
				t.Errorf("%s: found %v, %v; want %s", c.name, found, err, c.want)
			}
		}
		if err := d.Setup(t.Context()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		have, err := d.Snapshot(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		ops := lb.Diff(have, want, lb.Policy{})
		if errs := d.Apply(t.Context(), ops); errs != nil {
			t.Fatalf("%s: %v", c.name, errs)
		}
		equalCounts(t, c.name, r.Spread(r.Peer, "tcp", "10.96.3.7:80", 2), map[string]int{"10.1.0.2:80": 1, "10.1.0.3:80": 1})
		r.refused("tcp", "10.96.3.7:81")
	}
}

// The number of the ruleset tells our own writes from those of others.
func TestUntouched(t *testing.T) {
	r := newRig(t)
	d := r.driver()
	if d.Untouched(t.Context()) {
		t.Error("before the first reading, nothing is known")
	}
	read := func() {
		t.Helper()
		if _, err := d.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	read()
	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80")))
	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80", "10.1.0.3:80"), service(vip4, 53, state.UDP)))
	r.program(d, table())
	if err := d.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !d.Untouched(t.Context()) {
		t.Error("our own changes are taken for somebody else's")
	}
	v := vandal{r.Vandal()}
	foreign := &nftables.Table{Name: "foreign", Family: nftables.TableFamilyINet}
	v.Nftables.AddTable(foreign)
	v.Must(nil)
	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80")))
	if d.Untouched(t.Context()) {
		t.Error("a change before one of ours is not noticed")
	}
	read()
	if !d.Untouched(t.Context()) {
		t.Error("still touched after it was read back")
	}
	v.Nftables.DelTable(foreign)
	v.Must(nil)
	if d.Untouched(t.Context()) {
		t.Error("a change after ours is not noticed")
	}
}

// Rule L1: another process finds all that is ours, removes it, and nothing else.
func TestRemnants(t *testing.T) {
	r := newRig(t)
	d := r.driver()
	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80"), service(vip6, 53, state.UDP, "[fd01::2]:53")))
	v := vandal{r.Vandal()}
	v.Nftables.AddTable(&nftables.Table{Name: "foreign", Family: nftables.TableFamilyINet})
	foreign := &rtnl.Route{
		Dst: ipNet(netip.MustParsePrefix("10.77.0.0/16")), Table: unix.RT_TABLE_LOCAL,
		Type: unix.RTN_LOCAL, Scope: rtnl.SCOPE_HOST, LinkIndex: 1,
	}
	v.Must(v.Routes.RouteAdd(foreign))

	fresh, err := New(Config{NetNS: r.Node.Path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	marking, err := pool.NewMarked(fresh.cfg) // as IPVS has them, which was never used here
	if err != nil {
		t.Fatal(err)
	}
	defer marking.Close()
	if err := marking.Discover(); err != nil || !marking.Owns(vip4) || len(marking.Marks()) > 0 {
		t.Errorf("without marks: %v, %v, %v", marking.Pools(), marking.Marks(), err)
	}
	before := r.NftList()
	left, err := fresh.Remnants(t.Context())
	want := `[nftables table inet meshd_nat (2 services) nftables table ip meshd (guard, masquerade, marks) ` +
		`nftables table ip6 meshd (guard, masquerade, marks) local route of pool 10.96.0.0/16 (source address 10.1.0.1) ` +
		`local route of pool fd96::/64 (source address fd01::1)]`
	if got := fmt.Sprint(left); err != nil || got != want {
		t.Errorf("left %s, %v\nwant %s", got, err, want)
	}
	if r.NftList() != before {
		t.Error("looking changed the rules")
	}
	for range 2 { // idempotent
		if err := fresh.Teardown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left, err := fresh.Remnants(t.Context()); err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
	}
	if list := r.NftList(); list != "" && (!strings.Contains(list, "foreign") || strings.Contains(list, "meshd")) {
		t.Errorf("the ruleset is now %s", list)
	}
	routes, err := v.Routes.RouteListFiltered(unix.AF_INET, &rtnl.Route{Table: unix.RT_TABLE_LOCAL, Dst: foreign.Dst},
		rtnl.RT_FILTER_TABLE|rtnl.RT_FILTER_DST)
	if err != nil || len(routes) != 1 {
		t.Errorf("the foreign route: %v, %v", routes, err)
	}
	r.Node.Do(t, func() error {
		have, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		if strings.TrimSpace(string(have)) != "1" {
			t.Error("a sysctl was changed back; others may need it")
		}
		return err
	})
}
