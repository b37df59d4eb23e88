package hostcheck_test

import (
	"net/netip"
	"slices"
	"testing"

	"meshd/lb/hostcheck"
)

// apart are the rules with which Docker keeps its networks apart.
func apart(bridges ...string) []hostcheck.Chain {
	first, second := hostcheck.Chain{Name: "DOCKER-ISOLATION-STAGE-1"}, hostcheck.Chain{Name: "DOCKER-ISOLATION-STAGE-2"}
	base := hostcheck.Chain{
		Name: "FORWARD", Hook: hostcheck.Forward,
		Rules: []hostcheck.Rule{jump("DOCKER-USER"), jump(first.Name)},
	}
	for _, b := range bridges {
		to := hostcheck.Condition{Field: hostcheck.OutDevice, Names: []string{b}}
		away := to
		away.Not = true
		first.Rules = append(first.Rules, jump(second.Name, from(b), away))
		second.Rules = append(second.Rules, drop(to))
	}
	all := []hostcheck.Chain{base, {Name: "DOCKER-USER"}, first, second}
	for i := range all {
		all[i].Family, all[i].Table = "ip", "filter"
	}
	return all
}

// TestTasksThatAreKeptApart has tasks behind two bridges of one host, between which
// nothing passes. That is a fault only for those of one network.
func TestTasksThatAreKeptApart(t *testing.T) {
	const direct = " && iptables -w -I DOCKER-USER -m conntrack --ctorigdst 10.1.11.0/24 -j ACCEPT && iptables -w -I " +
		"DOCKER-USER -m conntrack --ctorigdst 10.1.1.0/24 -j ACCEPT"
	const pool, other = "10.96.0.0/16", "10.97.0.0/16"
	first, second := netip.MustParseAddr("10.1.1.2"), netip.MustParseAddr("10.1.11.2")
	network := func(pool string, tasks ...netip.Addr) hostcheck.Network {
		return hostcheck.Network{Pools: []netip.Prefix{prefix(pool)}, Tasks: tasks}
	}
	const vips = "firewall-forward: iptables -w -I DOCKER-USER -m conntrack --ctorigdst 10.96.0.0/16 -j ACCEPT"
	for name, c := range map[string]struct {
		driver   string
		networks []hostcheck.Network
		bridges  []string
		want     []string
	}{
		"one network, nft":       {"nft", []hostcheck.Network{network(pool, first, second)}, []string{"tasks", "front"}, []string{vips + direct}},
		"one network, IPVS":      {"ipvs", []hostcheck.Network{network(pool, first, second)}, []string{"tasks", "front"}, []string{vips + direct}},
		"a network each":         {"nft", []hostcheck.Network{network(pool, first), network(other, second)}, []string{"tasks", "front"}, nil},
		"other bridges":          {"nft", []hostcheck.Network{network(pool, first, second)}, []string{"back", "side"}, nil},
		"a pool that is no more": {"nft", []hostcheck.Network{network("10.98.0.0/16", first, second)}, []string{"tasks", "front"}, []string{"firewall-forward: " + direct[len(" && "):]}},
	} {
		t.Run(name, func(t *testing.T) {
			f, n := host()
			f.Devices = append(f.Devices, hostcheck.Device{
				Name: "front", Bridge: true,
				Prefixes: []netip.Prefix{prefix("10.1.11.1/24")}, Forward4: hostcheck.On,
			})
			f.Chains = apart(c.bridges...)
			n.Driver, n.Tasks, n.Networks = c.driver, append(n.Tasks, second), c.networks
			n.Pools = append(n.Pools, prefix(other))
			if got := found(f, n); !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
