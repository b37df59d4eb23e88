package hostcheck

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// command returns the command that lets through what is denied. Tables of
// iptables are written by iptables, since it cannot read what nft writes there.
func (d *denied) command(rules ruleset) string {
	c := d.chain
	if iptables := writer(c); iptables != "" {
		into := c.Name
		if rules[key{c.Family, c.Table, "DOCKER-USER"}] != nil && c.Hook == Forward {
			into = "DOCKER-USER"
		}
		table := ""
		if c.Table != "filter" {
			table = "-t " + c.Table + " "
		}
		var all []string
		if d.translated {
			all = append(all, fmt.Sprintf("%s -w %s-I %s -m conntrack --ctstate DNAT -j ACCEPT", iptables, table, into))
		}
		for _, p := range d.orig {
			match := "-m conntrack --ctorigdst " + p.String()
			if c.Hook == Prerouting {
				match = "-d " + p.String()
			}
			all = append(all, fmt.Sprintf("%s -w %s-I %s %s -j ACCEPT", iptables, table, into, match))
		}
		for _, l := range d.local {
			all = append(all, fmt.Sprintf("%s -w %s-I %s -p %s --dport %d -j ACCEPT", iptables, table, into, protocol(l.proto), l.at.Port()))
		}
		return strings.Join(all, " && ")
	}
	chain := fmt.Sprintf("nft insert rule %s %s %s ", c.Family, c.Table, c.Name)
	var all []string
	if d.translated {
		all = append(all, chain+"ct status dnat accept")
	}
	for family, digit := range map[string]int{"ip": 32, "ip6": 128} {
		if set := prefixesOf(d.orig, digit); set != "" {
			match := "ct original " + family + " daddr "
			if c.Hook == Prerouting {
				match = family + " daddr "
			}
			all = append(all, chain+match+set+" accept")
		}
	}
	slices.Sort(all)
	if ports := portsOf(d.local); ports != "" {
		all = append(all, chain+"meta l4proto '{ tcp, udp }' th dport "+ports+" accept")
	}
	return strings.Join(all, " && ")
}

// writer returns the program that writes a table which iptables keeps; empty: it
// is nft's.
func writer(c *Chain) string {
	kept := slices.Contains([]string{"filter", "raw", "mangle", "nat", "security"}, c.Table) && strings.ToUpper(c.Name) == c.Name
	switch {
	case kept && c.Family == "ip":
		return "iptables"
	case kept && c.Family == "ip6":
		return "ip6tables"
	}
	return ""
}

// prefixesOf formats the prefixes of a family as nft wants them.
func prefixesOf(all []netip.Prefix, bits int) string {
	var words []string
	for _, p := range all {
		if p.Addr().BitLen() == bits {
			words = append(words, p.String())
		}
	}
	return set(words)
}

func portsOf(all []local) string {
	var ports []uint16
	for _, l := range all {
		addOnce(&ports, l.at.Port())
	}
	slices.SortFunc(ports, cmp.Compare[uint16])
	var words []string
	for _, p := range ports {
		words = append(words, fmt.Sprint(p))
	}
	return set(words)
}

// set formats values as nft wants them in a command line of a shell.
func set(words []string) string {
	if len(words) > 1 {
		return "'{ " + strings.Join(words, ", ") + " }'"
	}
	return strings.Join(words, "")
}

func protocol(n uint32) string {
	if n == udp {
		return "udp"
	}
	return "tcp"
}
