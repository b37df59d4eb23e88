package hostcheck_test

import (
	"testing"

	"meshd/lb/hostcheck"
)

// TestFirewallCommands checks the commands for each kind of table.
func TestFirewallCommands(t *testing.T) {
	docker := []hostcheck.Chain{
		{Family: "ip", Table: "filter", Name: "FORWARD", Hook: hostcheck.Forward, Drops: true, Rules: []hostcheck.Rule{jump("DOCKER-USER")}},
		{Family: "ip", Table: "filter", Name: "DOCKER-USER"},
	}
	one := func(family, table, name string, hook hostcheck.Hook) []hostcheck.Chain {
		return []hostcheck.Chain{{Family: family, Table: table, Name: name, Hook: hook, Drops: true}}
	}
	for name, c := range map[string]struct {
		chains []hostcheck.Chain
		change func(*hostcheck.Needs)
		want   string
	}{
		"docker": {docker, nil, "iptables -w -I DOCKER-USER -m conntrack --ctorigdst 10.96.0.0/16 -j ACCEPT && iptables -w -I DOCKER-USER -m conntrack --ctorigdst 10.1.1.0/24 -j ACCEPT && iptables -w -I DOCKER-USER -m conntrack --ctorigsrc 10.1.1.0/24 -j ACCEPT"},
		"iptables before a pool is known": {
			one("ip", "filter", "FORWARD", hostcheck.Forward), func(n *hostcheck.Needs) { n.Pools = nil },
			"iptables -w -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT && iptables -w -I FORWARD -m conntrack --ctorigdst " +
				"10.1.1.0/24 -j ACCEPT && iptables -w -I FORWARD -m conntrack --ctorigsrc 10.1.1.0/24 -j ACCEPT",
		},
		"iptables raw": {one("ip", "raw", "PREROUTING", hostcheck.Prerouting), nil, "iptables -w -t raw -I PREROUTING -d 10.1.1.0/24 -j ACCEPT && iptables -w -t raw -I PREROUTING -s 10.1.1.0/24 -j ACCEPT"},
		"iptables input": {
			one("ip", "filter", "INPUT", hostcheck.Input), func(n *hostcheck.Needs) { n.DNS = nil },
			"iptables -w -I INPUT -m conntrack --ctorigdst 10.96.0.0/16 -j ACCEPT && iptables -w -I INPUT -p udp --dport " +
				"7946 -j ACCEPT && iptables -w -I INPUT -p tcp --dport 7946 -j ACCEPT && iptables -w -I INPUT -m conntrack " +
				"--ctstate ESTABLISHED -j ACCEPT",
		},
		"nft":       {one("inet", "fw", "forward", hostcheck.Forward), nil, "nft insert rule inet fw forward ct original ip daddr 10.96.0.0/16 accept && nft insert rule inet fw forward ct original ip daddr 10.1.1.0/24 accept && nft insert rule inet fw forward ct original ip saddr 10.1.1.0/24 accept"},
		"nft input": {one("inet", "fw", "input", hostcheck.Input), nil, "nft insert rule inet fw input ct original ip daddr 10.96.0.0/16 accept && nft insert rule inet fw input meta l4proto '{ tcp, udp }' th dport '{ 53, 7946 }' accept && nft insert rule inet fw input ct state established accept"},
		"IPv6": {
			one("ip6", "filter", "FORWARD", hostcheck.Forward),
			func(n *hostcheck.Needs) { n.Pools = append(n.Pools, prefix("fd96::/64")) },
			"ip6tables -w -I FORWARD -m conntrack --ctorigdst fd96::/64 -j ACCEPT",
		},
		"names for a shell": {one("inet", "a b", "$(reboot)'x", hostcheck.Forward), nil, `nft insert rule inet 'a b' '$(reboot)'\''x' ct original ip daddr 10.96.0.0/16 accept && nft insert rule inet 'a b' '$(reboot)'\''x' ct original ip daddr 10.1.1.0/24 accept && nft insert rule inet 'a b' '$(reboot)'\''x' ct original ip saddr 10.1.1.0/24 accept`},
		"not of our family": {one("ip6", "filter", "FORWARD", hostcheck.Forward), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, n := host()
			f.Chains = c.chains
			f.Forward6 = hostcheck.On
			if c.change != nil {
				c.change(n)
			}
			got := hostcheck.Findings(f, n)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || got[0].Command != c.want) {
				t.Errorf("found %+v, want %s", got, c.want)
			}
		})
	}
}
