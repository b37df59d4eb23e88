package hostcheck_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"meshd/lb/hostcheck"
)

// container is one against which nothing stands, with a task that listens at port 80.
func container() (*hostcheck.Facts, *hostcheck.Inside) {
	f := &hostcheck.Facts{
		Connections: 1, MaxConnections: 1000,
		Devices: []hostcheck.Device{
			{Name: "lo", Loopback: true, Prefixes: []netip.Prefix{prefix("127.0.0.1/8")}},
			{Name: "eth0", Prefixes: []netip.Prefix{prefix("10.1.1.2/24"), prefix("fd01::2/64")}},
		},
	}
	return f, &hostcheck.Inside{
		Name: "web", Enter: []string{"nsenter", "-t", "7", "-n"}, Driver: "nft",
		DNS:       netip.MustParseAddrPort("127.0.0.11:40000"),
		Pools:     []netip.Prefix{prefix("10.96.0.0/16"), prefix("fd96::/64")},
		Addresses: []netip.Addr{netip.MustParseAddr("10.1.1.2"), netip.MustParseAddr("fd01::2")},
		Serves:    []hostcheck.Listen{{Number: 80}},
	}
}

// TestFindingsInside looks into containers. What its owner may have meant, as a filter
// that lets one port through, is no finding.
func TestFindingsInside(t *testing.T) {
	drops := func(hook hostcheck.Hook, rules ...hostcheck.Rule) func(f *hostcheck.Facts, _ *hostcheck.Inside) {
		return func(f *hostcheck.Facts, _ *hostcheck.Inside) {
			f.Chains = append(f.Chains, hostcheck.Chain{
				Family: "ip", Table: "own", Name: "c", Hook: hook, Drops: true,
				Rules: rules,
			})
		}
	}
	accept := func(all ...hostcheck.Condition) hostcheck.Rule {
		return hostcheck.Rule{Conditions: all, Verdict: hostcheck.Accept}
	}
	lo := func(field hostcheck.Field) hostcheck.Rule {
		return accept(hostcheck.Condition{Field: field, Names: []string{"lo"}})
	}
	established := accept(hostcheck.Condition{
		Field: hostcheck.State,
		Mask:  hostcheck.StateEstablished | hostcheck.StateRelated,
	})
	port := func(n uint32) hostcheck.Rule {
		return accept(hostcheck.Condition{
			Field:   hostcheck.DestinationPort,
			Numbers: []hostcheck.Numbers{{First: n, Last: n}},
		})
	}
	const in, out = "nsenter -t 7 -n ", "nsenter -t 7 -n sh -c "
	for name, c := range map[string]struct {
		change func(*hostcheck.Facts, *hostcheck.Inside)
		want   []string
	}{
		"nothing": {func(*hostcheck.Facts, *hostcheck.Inside) {}, nil},
		"what comes in": {drops(hostcheck.Input), []string{
			"firewall-input: " + out + "'nft insert rule ip own c iifname lo accept && nft insert rule ip own c ct original " +
				"ip daddr 10.96.0.0/16 accept && nft insert rule ip own c ct original ip daddr 10.1.1.2/32 accept'",
		}},
		"what comes in, but for answers and the loopback": {
			drops(hostcheck.Input, lo(hostcheck.InDevice), established),
			[]string{
				"firewall-input: " + in + "nft insert rule ip own c ct original ip daddr 10.1.1.2/32 accept",
			},
		},
		"what comes in, but for its port":       {drops(hostcheck.Input, lo(hostcheck.InDevice), established, port(80)), nil},
		"what comes in, but for another port":   {drops(hostcheck.Input, lo(hostcheck.InDevice), established, port(22)), []string{"firewall-input: " + in + "nft insert rule ip own c ct original ip daddr 10.1.1.2/32 accept"}},
		"what goes out, but for the loopback":   {drops(hostcheck.Output, lo(hostcheck.OutDevice), established), []string{"firewall-output: " + in + "nft insert rule ip own c ct original ip daddr 10.96.0.0/16 accept"}},
		"what goes out, but for one port":       {drops(hostcheck.Output, lo(hostcheck.OutDevice), established, port(443)), nil},
		"what goes out, but for some addresses": {drops(hostcheck.Output, lo(hostcheck.OutDevice), established, accept(hostcheck.Condition{Field: hostcheck.Destination, Spans: []hostcheck.Span{hostcheck.SpanOf(prefix("10.1.0.0/16"))}})), nil},
		"what goes out, as it is advised":       {drops(hostcheck.Output, lo(hostcheck.OutDevice), established, accept(hostcheck.Condition{Field: hostcheck.OriginalDestination, Spans: []hostcheck.Span{hostcheck.SpanOf(prefix("10.96.0.0/16"))}})), nil},
		"what is forwarded":                     {drops(hostcheck.Forward), nil},
		"what goes out, without VIPs there": {func(f *hostcheck.Facts, n *hostcheck.Inside) {
			drops(hostcheck.Output, lo(hostcheck.OutDevice), established)(f, n)
			n.Driver = ""
		}, nil},
		"IPv6 is off": {func(f *hostcheck.Facts, _ *hostcheck.Inside) { f.Devices[0].NoIPv6 = true }, []string{
			"ipv6-disabled: " + in + "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 " +
				"net.ipv6.conf.lo.disable_ipv6=0",
		}},
		"IPv6 is off, and it never had any": {func(f *hostcheck.Facts, n *hostcheck.Inside) {
			f.Devices[0].NoIPv6, n.Addresses = true, n.Addresses[:1]
		}, nil},
		"conntrack":  {func(f *hostcheck.Facts, _ *hostcheck.Inside) { f.Connections = 900 }, []string{"conntrack: sysctl -w net.netfilter.nf_conntrack_max=2000"}},
		"unreadable": {func(f *hostcheck.Facts, _ *hostcheck.Inside) { f.Unreadable = []string{"packet filters: too many"} }, []string{"unreadable: "}},
	} {
		f, n := container()
		c.change(f, n)
		var got []string
		for _, x := range hostcheck.FindingsInside(f, n) {
			got = append(got, string(x.Code)+": "+x.Command)
			if x.What[:len("sandbox web: ")] != "sandbox web: " {
				t.Errorf("%s: whose it is is not said: %s", name, x.What)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: found %q, want %q", name, got, c.want)
		}
	}
}

// TestFindingsInsideAreBounded: rules of a container that lead to each other in very
// many ways do not keep the host from being looked at.
func TestFindingsInsideAreBounded(t *testing.T) {
	f, in := container()
	chain := func(name string, hook hostcheck.Hook, times int, to string) {
		c := hostcheck.Chain{Family: "inet", Table: "own", Name: name, Hook: hook, Drops: true}
		for range times {
			c.Rules = append(c.Rules, hostcheck.Rule{Verdict: hostcheck.Jump, To: to})
		}
		f.Chains = append(f.Chains, c)
	}
	for i := range 15 {
		chain(fmt.Sprintf("c%d", i), "", 100, fmt.Sprintf("c%d", i+1))
	}
	chain("c15", "", 0, "")
	for i := range 1000 {
		chain(fmt.Sprintf("b%d", i), hostcheck.Output, 1, "c0")
	}
	found := hostcheck.FindingsInside(f, in)
	if len(found) != 1 || found[0].Code != hostcheck.Unreadable {
		t.Errorf("found %v", found)
	}
}
