package hostcheck_test

import (
	"fmt"
	"net/netip"
	"strings"

	"meshd/lb/hostcheck"
)

// A host with Docker drops what it forwards unless a rule accepts it. The finding has
// the command that makes it accept connections to VIPs and between containers of
// different hosts.
func Example() {
	bridge := netip.MustParsePrefix("172.17.0.1/16")
	facts := hostcheck.Facts{
		Devices: []hostcheck.Device{
			{Name: "eth0", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}, Forward4: hostcheck.On},
			{Name: "docker0", Bridge: true, Prefixes: []netip.Prefix{bridge}, Forward4: hostcheck.On},
		},
		Forward4: hostcheck.On,
		Chains: []hostcheck.Chain{
			{Family: "ip", Table: "filter", Name: "FORWARD", Hook: hostcheck.Forward, Drops: true, Rules: []hostcheck.Rule{
				{Verdict: hostcheck.Jump, To: "DOCKER-USER"},
				{Verdict: hostcheck.Accept, Conditions: []hostcheck.Condition{{
					Field: hostcheck.OutDevice, Names: []string{"docker0"},
				}}},
			}},
			{Family: "ip", Table: "filter", Name: "DOCKER-USER"},
		},
	}
	needs := hostcheck.Needs{
		Driver: "nft",
		Pools:  []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		Tasks:  []netip.Addr{bridge.Addr().Next()},
	}
	for _, f := range hostcheck.Findings(&facts, &needs) {
		cause, _, _ := strings.Cut(f.What, ":")
		fmt.Printf("%s, %s: %s\n", f.Code, f.Severity, cause)
		fmt.Println(strings.ReplaceAll(f.Command, " && ", "\n"))
	}
	// Output:
	// firewall-forward, fault: the policy of chain FORWARD of table ip filter (hook forward) is drop
	// iptables -w -I DOCKER-USER -m conntrack --ctorigdst 10.96.0.0/16 -j ACCEPT
	// iptables -w -I DOCKER-USER -m conntrack --ctorigdst 172.17.0.0/16 -j ACCEPT
	// iptables -w -I DOCKER-USER -m conntrack --ctorigsrc 172.17.0.0/16 -j ACCEPT
}
