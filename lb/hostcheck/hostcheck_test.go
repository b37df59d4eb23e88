package hostcheck_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"meshd/lb/hostcheck"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// host is one against which nothing stands: eth0 leads to other hosts, and
// containers are behind the bridge tasks.
func host() (*hostcheck.Facts, *hostcheck.Needs) {
	on := hostcheck.On
	task := netip.MustParseAddr("10.1.1.2")
	f := &hostcheck.Facts{
		Forward4: on, Forward6: on, BridgeFilter4: true, Connections: 10, MaxConnections: 1000,
		Devices: []hostcheck.Device{
			{Name: "lo", Loopback: true, Prefixes: []netip.Prefix{prefix("127.0.0.1/8")}, Forward4: on},
			{Name: "eth0", Prefixes: []netip.Prefix{prefix("172.20.0.1/24")}, Forward4: on, Forward6: on},
			{Name: "tasks", Bridge: true, Prefixes: []netip.Prefix{prefix("10.1.1.1/24")}, Forward4: on, Forward6: on},
			{Name: "veth1", Master: "tasks", Hairpin: true, Pair: true},
		},
		Neighbours: map[netip.Addr]string{task: "02:01"}, Ports: map[string]string{"02:01": "veth1"},
	}
	n := &hostcheck.Needs{
		Driver: "nft", Pools: []netip.Prefix{prefix("10.96.0.0/16")}, Tasks: []netip.Addr{task}, Ports: []uint16{80}, Targets: []uint16{80},
		Backends: []netip.Addr{netip.MustParseAddr("10.1.2.2")}, Peers: []netip.Addr{netip.MustParseAddr("172.20.0.2")},
		Gossip: netip.MustParseAddrPort("172.20.0.1:7946"), DNS: []netip.AddrPort{netip.MustParseAddrPort("10.1.1.1:53")},
	}
	return f, n
}

// forwardsNot switches off what ip_forward is for.
func forwardsNot(f *hostcheck.Facts) {
	f.Forward4 = hostcheck.Off
	for i := range f.Devices {
		f.Devices[i].Forward4 = hostcheck.Off
	}
}

// TestMissingForwarding switches on what containers need, and nothing else.
func TestMissingForwarding(t *testing.T) {
	f, n := host()
	forwardsNot(f)
	f.Forward6, n.Pools = hostcheck.Off, append(n.Pools, prefix("fd96::/64"))
	f.RouteDevices = []string{"vpn", "eth0"}
	f.Devices = append(f.Devices,
		hostcheck.Device{
			Name: "vpn", Prefixes: []netip.Prefix{prefix("10.8.0.1/24")}, Forward4: hostcheck.Off,
			Force6: hostcheck.Off,
		},
		hostcheck.Device{
			Name: "lan", Prefixes: []netip.Prefix{prefix("192.168.0.1/24")}, Forward4: hostcheck.Off,
			Force6: hostcheck.Off,
		},
	)
	want := []string{
		"net/ipv4/conf/tasks/forwarding", "net/ipv4/conf/eth0/forwarding", "net/ipv4/conf/vpn/forwarding",
		"net/ipv6/conf/vpn/force_forwarding",
	}
	if got := hostcheck.MissingForwarding(f, n); !slices.Equal(got, want) {
		t.Errorf("missing %q, want %q", got, want)
	}
}

// found returns what is found, as "code: command".
func found(f *hostcheck.Facts, n *hostcheck.Needs) (all []string) {
	for _, x := range hostcheck.Findings(f, n) {
		all = append(all, string(x.Code)+": "+x.Command)
	}
	return all
}

func TestNothingIsFoundOnAGoodHost(t *testing.T) {
	f, n := host()
	if got := found(f, n); got != nil {
		t.Errorf("found %q", got)
	}
	if got := found(&hostcheck.Facts{}, &hostcheck.Needs{Driver: "nft"}); got != nil {
		t.Errorf("of nothing: %q", got)
	}
}

func TestFindings(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*hostcheck.Facts, *hostcheck.Needs)
		want   []string
	}{
		"hairpin": {func(f *hostcheck.Facts, _ *hostcheck.Needs) { f.Devices[3].Hairpin = false }, []string{"hairpin: bridge link set dev veth1 hairpin on"}},
		"a task behind the uplink": {func(f *hostcheck.Facts, _ *hostcheck.Needs) {
			f.Devices[3].Hairpin, f.Devices[3].Pair = false, false
		}, nil},
		"no br_netfilter": {func(f *hostcheck.Facts, _ *hostcheck.Needs) {
			f.Devices[3].Hairpin, f.BridgeFilter4 = false, false
		}, nil},
		"forwarding that meshd switches on": {func(f *hostcheck.Facts, n *hostcheck.Needs) {
			forwardsNot(f)
			n.FixesHost = true
		}, nil},
		"forwarding": {func(f *hostcheck.Facts, _ *hostcheck.Needs) { forwardsNot(f) }, []string{"forwarding: sysctl -w net.ipv4.ip_forward=1"}},
		"forwarding of a device": {
			func(f *hostcheck.Facts, n *hostcheck.Needs) { f.Devices[1].Forward4 = hostcheck.Off },
			[]string{
				"forwarding: sysctl -w net/ipv4/conf/eth0/forwarding=1",
			},
		},
		"forwarding of the devices alone": {func(f *hostcheck.Facts, _ *hostcheck.Needs) { f.Forward4 = hostcheck.Off }, nil},
		"forwarding of one device alone": {func(f *hostcheck.Facts, n *hostcheck.Needs) {
			forwardsNot(f)
			f.Devices[2].Forward4, n.FixesHost, n.ForwardsByDevice = hostcheck.On, true, true
		}, []string{"forwarding: sysctl -w net/ipv4/conf/eth0/forwarding=1"}},
		"forwarding of IPv6 of devices": {func(f *hostcheck.Facts, n *hostcheck.Needs) {
			f.Forward6, n.Pools = hostcheck.Off, append(n.Pools, prefix("fd96::/64"))
			f.Devices[1].Force6, f.Devices[2].Force6 = hostcheck.On, hostcheck.On
		}, nil},
		"forwarding without IPv6 pools": {func(f *hostcheck.Facts, _ *hostcheck.Needs) { f.Forward6 = hostcheck.Off }, nil},
		"forwarding of IPv6": {func(f *hostcheck.Facts, n *hostcheck.Needs) {
			f.Forward6, n.Pools = hostcheck.Off, append(n.Pools, prefix("fd96::/64"))
		}, []string{"forwarding: sysctl -w net.ipv6.conf.all.forwarding=1"}},
		"IPv6 is off": {func(f *hostcheck.Facts, n *hostcheck.Needs) {
			f.Devices[0].NoIPv6, n.Pools = true, append(n.Pools, prefix("fd96::/64"))
		}, []string{"ipv6-disabled: sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 " +
			"net.ipv6.conf.lo.disable_ipv6=0"}},
		"IPv6 is off, and nobody needs it": {func(f *hostcheck.Facts, _ *hostcheck.Needs) { f.Devices[0].NoIPv6 = true }, nil},
		"rp_filter": {func(f *hostcheck.Facts, _ *hostcheck.Needs) {
			f.Devices = append(f.Devices, hostcheck.Device{
				Name: "other", Strict: true,
				Prefixes: []netip.Prefix{prefix("10.1.1.254/24")},
			})
		}, []string{"rp-filter: sysctl -w net/ipv4/conf/all/rp_filter=2 net/ipv4/conf/other/rp_filter=2"}},
		"rp_filter of the only device": {func(f *hostcheck.Facts, _ *hostcheck.Needs) { f.Devices[2].Strict = true }, nil},
		"conntrack":                    {func(f *hostcheck.Facts, _ *hostcheck.Needs) { f.Connections = 800 }, []string{"conntrack: sysctl -w net.netfilter.nf_conntrack_max=2000"}},
		"conntrack has room":           {func(f *hostcheck.Facts, _ *hostcheck.Needs) { f.Connections = 799 }, nil},
		"IPVS beside nft": {func(f *hostcheck.Facts, _ *hostcheck.Needs) {
			f.IPVS = []netip.AddrPort{netip.MustParseAddrPort("10.96.0.9:80"), netip.MustParseAddrPort("10.7.0.9:80")}
		}, []string{"ipvs-foreign: ipvsadm -D -t 10.96.0.9:80 || ipvsadm -D -u 10.96.0.9:80"}},
		"IPVS is ours": {func(f *hostcheck.Facts, n *hostcheck.Needs) {
			f.IPVS, n.Driver = []netip.AddrPort{netip.MustParseAddrPort("10.96.0.9:80")}, "ipvs"
		}, nil},
		"scheduler": {func(f *hostcheck.Facts, n *hostcheck.Needs) {
			f.Schedulers, n.Schedulers, n.Driver = map[string]bool{"mh": false, "sh": true}, []string{"mh", "sh", "lc"}, "ipvs"
		}, []string{"ipvs-module: modprobe ip_vs_mh"}},
		"kube-proxy, IPVS": {func(f *hostcheck.Facts, _ *hostcheck.Needs) {
			f.Devices = append(f.Devices, hostcheck.Device{Name: "kube-ipvs0", Prefixes: []netip.Prefix{prefix("10.96.0.1/32")}})
		}, []string{"kube-proxy: "}},
		"kube-proxy, iptables": {func(f *hostcheck.Facts, _ *hostcheck.Needs) {
			f.Chains = []hostcheck.Chain{{
				Family: "ip", Table: "nat", Name: "KUBE-SERVICES",
				Rules: []hostcheck.Rule{{Conditions: []hostcheck.Condition{to("10.96.0.10/32")}}},
			}}
		}, []string{"kube-proxy: "}},
		"kube-proxy elsewhere": {func(f *hostcheck.Facts, _ *hostcheck.Needs) {
			f.Chains = []hostcheck.Chain{{
				Family: "ip", Table: "nat", Name: "KUBE-SERVICES",
				Rules: []hostcheck.Rule{{Conditions: []hostcheck.Condition{to("10.43.0.10/32")}}},
			}}
		}, nil},
		"an address of a neighbour": {func(_ *hostcheck.Facts, n *hostcheck.Needs) {
			n.Gossip = netip.MustParseAddrPort("172.20.0.77:7946")
		}, []string{"address: ip address add 172.20.0.77/32 dev eth0"}},
		"an address of nobody":        {func(_ *hostcheck.Facts, n *hostcheck.Needs) { n.Advertise = netip.MustParseAddr("203.0.113.5") }, []string{"address: "}},
		"what cannot be read is told": {func(f *hostcheck.Facts, _ *hostcheck.Needs) { f.Unreadable = []string{"packet filters"} }, []string{"unreadable: "}},
		"lb none":                     {func(f *hostcheck.Facts, n *hostcheck.Needs) { f.Forward4, n.Driver = hostcheck.Off, "" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f, n := host()
			c.change(f, n)
			if got := found(f, n); !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// to is a condition on the destination.
func to(p string) hostcheck.Condition {
	return hostcheck.Condition{Field: hostcheck.Destination, Spans: []hostcheck.Span{hostcheck.SpanOf(prefix(p))}}
}

func from(names ...string) hostcheck.Condition {
	return hostcheck.Condition{Field: hostcheck.InDevice, Names: names}
}

func state(mask uint32) hostcheck.Condition {
	return hostcheck.Condition{Field: hostcheck.State, Mask: mask}
}

func accept(c ...hostcheck.Condition) hostcheck.Rule {
	return hostcheck.Rule{Conditions: c, Verdict: hostcheck.Accept}
}

func drop(c ...hostcheck.Condition) hostcheck.Rule {
	return hostcheck.Rule{Conditions: c, Verdict: hostcheck.Drop}
}

func jump(name string, c ...hostcheck.Condition) hostcheck.Rule {
	return hostcheck.Rule{Conditions: c, Verdict: hostcheck.Jump, To: name}
}

// known are packets of connections that are.
func known() hostcheck.Rule {
	return accept(state(hostcheck.StateEstablished | hostcheck.StateRelated))
}

// TestForwardChains judges rules at the forward hook: what is told to be dropped
// is so, and what may be accepted by something that is not understood is not told.
func TestForwardChains(t *testing.T) {
	const both = "connections of containers to VIPs, connections of other hosts to containers of this one and " +
		"connections of containers to those of other hosts do"
	original := hostcheck.Condition{
		Field: hostcheck.OriginalDestination,
		Spans: []hostcheck.Span{hostcheck.SpanOf(prefix("10.96.0.0/16"))},
	}
	translated := hostcheck.Condition{Field: hostcheck.Status, Mask: hostcheck.StatusDNAT}
	port := hostcheck.Condition{Field: hostcheck.DestinationPort, Numbers: []hostcheck.Numbers{{First: 22, Last: 22}}}
	odd := hostcheck.Condition{}
	for name, c := range map[string]struct {
		drops bool // the policy
		rules []hostcheck.Rule
		other []hostcheck.Rule // of chain other
		want  string
	}{
		"accepts":                  {},
		"policy drop":              {drops: true, want: both},
		"policy drop, known pass":  {drops: true, rules: []hostcheck.Rule{known()}, want: both},
		"all pass":                 {drops: true, rules: []hostcheck.Rule{accept()}},
		"a last drop":              {rules: []hostcheck.Rule{known(), drop()}, want: both},
		"drops others":             {rules: []hostcheck.Rule{drop(from("docker0"))}},
		"drops ports of others":    {rules: []hostcheck.Rule{drop(port)}},
		"accepts ports of others":  {drops: true, rules: []hostcheck.Rule{accept(port)}, want: both},
		"accepts the pool":         {drops: true, rules: []hostcheck.Rule{known(), accept(original)}, want: "connections of other hosts"},
		"accepts translated":       {drops: true, rules: []hostcheck.Rule{known(), accept(translated)}, want: "connections of other hosts"},
		"accepts of containers":    {drops: true, rules: []hostcheck.Rule{known(), accept(from("ta*"))}, want: "connections of other hosts"},
		"accepts without answers":  {drops: true, rules: []hostcheck.Rule{accept(state(hostcheck.StateNew))}, want: both},
		"something odd may accept": {drops: true, rules: []hostcheck.Rule{accept(odd)}},
		"something odd may drop":   {rules: []hostcheck.Rule{drop(odd)}},
		"nobody knows":             {drops: true, rules: []hostcheck.Rule{{Verdict: hostcheck.Undecided}}},
		"negated":                  {drops: true, rules: []hostcheck.Rule{known(), accept(hostcheck.Condition{Field: hostcheck.InDevice, Not: true, Names: []string{"eth0"}})}, want: "connections of other hosts"},
		"a jump accepts":           {drops: true, rules: []hostcheck.Rule{jump("other")}, other: []hostcheck.Rule{accept()}},
		"a jump drops":             {rules: []hostcheck.Rule{jump("other", from("tasks"))}, other: []hostcheck.Rule{drop()}, want: both},
		"a jump comes back":        {drops: true, rules: []hostcheck.Rule{jump("other"), accept()}, other: []hostcheck.Rule{accept(port)}},
		"a goto does not":          {drops: true, rules: []hostcheck.Rule{{Verdict: hostcheck.Goto, To: "other"}, accept()}, want: both},
		"a return saves":           {rules: []hostcheck.Rule{jump("other")}, other: []hostcheck.Rule{{Verdict: hostcheck.Return}, drop()}},
		"a return may save":        {rules: []hostcheck.Rule{jump("other")}, other: []hostcheck.Rule{{Conditions: []hostcheck.Condition{odd}, Verdict: hostcheck.Return}, drop()}},
		"a chain that is missing":  {drops: true, rules: []hostcheck.Rule{jump("gone")}},
		"a circle":                 {drops: true, rules: []hostcheck.Rule{jump("other")}, other: []hostcheck.Rule{jump("other"), jump("other")}},
	} {
		t.Run(name, func(t *testing.T) {
			f, n := host()
			f.Chains = []hostcheck.Chain{
				{Family: "inet", Table: "fw", Name: "forward", Hook: hostcheck.Forward, Drops: c.drops, Rules: c.rules},
				{Family: "inet", Table: "fw", Name: "other", Rules: c.other},
			}
			got := hostcheck.Findings(f, n)
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("found %v", got)
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0].What, ": "+c.want)):
				t.Errorf("found %v, want %q", got, c.want)
			}
		})
	}
}

func TestFindingsAreBounded(t *testing.T) {
	f, n := host()
	for i := range 1000 {
		f.IPVS = append(f.IPVS, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80))
	}
	if got := len(hostcheck.Findings(f, n)); got != hostcheck.MaxFindings {
		t.Errorf("%d findings, want %d", got, hostcheck.MaxFindings)
	}
	if text := fmt.Sprint(hostcheck.Findings(f, n)[0]); !strings.Contains(text, "; mend it with: ipvsadm") {
		t.Errorf("as text: %s", text)
	}
}

// TestAddressTypes judges rules of the kind that ufw has, by the types of addresses:
// one of a pool is not the host's own to them, the node's own is.
func TestAddressTypes(t *testing.T) {
	kind := func(mask uint32) hostcheck.Condition {
		return hostcheck.Condition{Field: hostcheck.DestinationType, Mask: mask}
	}
	f, n := host()
	n.DNS = nil
	f.Chains = []hostcheck.Chain{
		{Family: "ip", Table: "filter", Name: "INPUT", Hook: hostcheck.Input, Rules: []hostcheck.Rule{
			jump("not-local"), accept(hostcheck.Condition{
				Field:   hostcheck.DestinationPort,
				Numbers: []hostcheck.Numbers{{First: 7946, Last: 7946}},
			}),
		}},
		{Family: "ip", Table: "filter", Name: "not-local", Rules: []hostcheck.Rule{
			{Conditions: []hostcheck.Condition{kind(hostcheck.TypeLocal)}, Verdict: hostcheck.Return}, drop(),
		}},
	}
	want := []string{"firewall-input: iptables -w -I INPUT -m conntrack --ctorigdst 10.96.0.0/16 -j ACCEPT"}
	if got := found(f, n); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	f.Chains[1].Rules[0].Conditions[0] = kind(hostcheck.TypeUnicast)
	if got := found(f, n); len(got) != 1 || !strings.Contains(got[0], "7946") || strings.Contains(got[0], "10.96") {
		t.Errorf("where what is not local is let through: found %q", got)
	}
}

// TestRuleForPoolsHidesNothing has a chain of which only the rule for pools is left,
// as firewall: accept makes it again after a flush: what else is dropped is told.
func TestRuleForPoolsHidesNothing(t *testing.T) {
	f, n := host()
	original := hostcheck.Condition{
		Field: hostcheck.OriginalDestination,
		Spans: []hostcheck.Span{hostcheck.SpanOf(n.Pools[0])},
	}
	f.Chains = []hostcheck.Chain{{
		Family: "ip", Table: "filter", Name: "INPUT", Hook: hostcheck.Input, Drops: true,
		Rules: []hostcheck.Rule{accept(original)},
	}}
	got := hostcheck.Findings(f, n)
	if len(got) != 1 || !strings.HasSuffix(got[0].What,
		": answers of other nodes, packets of other nodes and questions of containers for names do not get through") {
		t.Errorf("found %v", got)
	}
}

// TestRoutedAreLetThrough has chains that let containers reach VIPs, and not
// machines that send by this host: that is no finding, since few do, but is let
// through by who may do so.
func TestRoutedAreLetThrough(t *testing.T) {
	for _, driver := range []string{"nft", "ipvs"} {
		f, n := host()
		n.Driver = driver
		hook := map[string]hostcheck.Hook{"nft": hostcheck.Forward, "ipvs": hostcheck.Input}[driver]
		f.Chains = []hostcheck.Chain{{
			Family: "inet", Table: "fw", Name: "all", Hook: hook, Drops: true,
			Rules: []hostcheck.Rule{
				known(), accept(from("tasks")), accept(to("10.1.1.0/24")), accept(to("172.20.0.1/32")),
			},
		}}
		all, lets := hostcheck.Check(f, n)
		if len(all) > 0 {
			t.Errorf("%s: found %v", driver, all)
		}
		if len(lets) != 1 || !lets[0].VIPs || strings.Join(lets[0].Match, " ") != "ct original ip daddr 10.96.0.0/16" {
			t.Errorf("%s: let through %+v", driver, lets)
		}
		f.Chains[0].Rules = append(f.Chains[0].Rules, accept())
		if _, lets := hostcheck.Check(f, n); len(lets) > 0 {
			t.Errorf("%s: let through %+v though nothing is dropped", driver, lets)
		}
	}
}
