package hostcheck

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// RuleComment marks the rules that meshd has added to chains of others.
const RuleComment = "meshd"

// AcceptRule is a rule that makes a chain of others accept what meshd needs: what the
// command of a finding adds.
type AcceptRule struct {
	Family string `json:"family"` // of the table
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	// Program is what writes the table: nft, iptables, ip6tables, or the name of one of
	// the latter for its own tables in the kernel (iptables-legacy). Match is what the
	// rule matches, as words of the program's command line.
	Program string   `json:"program"`
	Match   []string `json:"match"`

	// VIPs reports whether the rule accepts nothing but connections to VIPs, which are
	// those of Pools.
	VIPs  bool           `json:"-"`
	Pools []netip.Prefix `json:"pools,omitempty"`
}

// ChainID identifies the chain that the rule is for and the program that writes it:
// it is equal for rules of one chain.
func (l AcceptRule) ChainID() string {
	return strings.Join([]string{l.Program, l.Family, l.Table, l.Chain}, " ")
}

// Command returns the command line that adds the rule, with a comment unless it is
// empty, or the one that deletes it. For nft there is none that deletes, since it
// deletes rules by number.
func (l AcceptRule) Command(comment string, remove bool) []string {
	if l.Program == "nft" {
		if remove {
			return nil
		}
		words := append([]string{"nft", "insert", "rule", l.Family, l.Table, l.Chain}, l.Match...)
		words = append(words, "accept")
		if comment != "" {
			words = append(words, "comment", `"`+comment+`"`)
		}
		return words
	}
	words := []string{l.Program, "-w"}
	if l.Table != "filter" {
		words = append(words, "-t", l.Table)
	}
	verb := "-I"
	if remove {
		verb = "-D"
	}
	words = append(append(words, verb, l.Chain), l.Match...)
	if comment != "" {
		words = append(words, "-m", "comment", "--comment", comment)
	}
	return append(words, "-j", "ACCEPT")
}

// shellCommand formats a command for a shell. Names of chains and devices may have
// any characters.
func shellCommand(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = shellQuote(w)
	}
	return strings.Join(quoted, " ")
}

// shellQuote writes a word so that a shell reads it as it is.
func shellQuote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,+@%", r)
	}
	if word != "" && strings.TrimFunc(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// acceptRules returns the rules that accept what is denied. Tables of iptables are
// written by iptables, since it cannot read what nft writes there.
func (d *denied) acceptRules(rules ruleset) (all []AcceptRule) {
	c := d.chain
	l := AcceptRule{Family: c.Family, Table: c.Table, Chain: c.Name, Program: programOf(c)}
	if l.Program == "nft" {
		return d.acceptRulesOfNft(l)
	}
	if rules[c.keyOf("DOCKER-USER")] != nil && c.Hook == Forward {
		l.Chain = "DOCKER-USER"
	}
	add := func(match ...string) {
		l.Match = match
		all = append(all, l)
	}
	if d.translated {
		add("-m", "conntrack", "--ctstate", "DNAT")
	}
	if d.loopback && c.Hook == Output {
		add("-o", "lo")
	} else if d.loopback {
		add("-i", "lo")
	}
	for _, p := range d.destinations {
		if l.VIPs, l.Pools = d.pools[p], nil; l.VIPs {
			l.Pools = []netip.Prefix{p}
		}
		if c.beforeConntrack() {
			add("-d", p.String())
		} else {
			add("-m", "conntrack", "--ctorigdst", p.String())
		}
	}
	l.VIPs, l.Pools = false, nil
	for _, p := range d.sources {
		if c.Hook == Prerouting {
			add("-s", p.String())
		} else {
			add("-m", "conntrack", "--ctorigsrc", p.String())
		}
	}
	for _, at := range d.listening {
		add("-p", protocolName(at.proto), "--dport", strconv.Itoa(int(at.at.Port())))
	}
	if d.answers {
		add("-m", "conntrack", "--ctstate", "ESTABLISHED")
	}
	return all
}

// acceptRulesOfNft completes l to the rules that nft writes.
func (d *denied) acceptRulesOfNft(l AcceptRule) (all []AcceptRule) {
	add := func(match ...string) {
		l.Match = match
		all = append(all, l)
	}
	if d.translated {
		add("ct", "status", "dnat")
	}
	if d.loopback && d.chain.Hook == Output {
		add("oifname", "lo")
	} else if d.loopback {
		add("iifname", "lo")
	}
	for _, family := range []struct {
		name string
		bits int
	}{{"ip", 32}, {"ip6", 128}} {
		for _, l.VIPs = range []bool{true, false} {
			prefixes := d.prefixesOf(l.VIPs, family.bits)
			if l.Pools = nil; l.VIPs {
				l.Pools = prefixes
			}
			switch set := nftSet(textsOf(prefixes)); {
			case set == "":
			case d.chain.beforeConntrack():
				add(family.name, "daddr", set)
			default:
				add("ct", "original", family.name, "daddr", set)
			}
		}
	}
	l.VIPs, l.Pools = false, nil
	for _, p := range d.sources {
		name := "ip"
		if p.Addr().Is6() {
			name = "ip6"
		}
		if d.chain.Hook == Prerouting {
			add(name, "saddr", p.String())
		} else {
			add("ct", "original", name, "saddr", p.String())
		}
	}
	if ports := portsOf(d.listening); ports != "" {
		add("meta", "l4proto", "{ tcp, udp }", "th", "dport", ports)
	}
	if d.answers {
		add("ct", "state", "established")
	}
	return all
}

// conntrackPriority is where in a hook conntrack finds a packet's connection.
const conntrackPriority = -200

// beforeConntrack reports whether a chain comes, or may come, before conntrack has
// found a packet's connection.
func (c *Chain) beforeConntrack() bool {
	return c.Hook == Prerouting || c.Hook == Output && c.Priority < conntrackPriority
}

// programOf returns the program that writes a chain's table: iptables if the names
// of both are its own, else nft.
func programOf(c *Chain) string {
	if c.Program != "" {
		return c.Program
	}
	kept := slices.Contains([]string{"filter", "raw", "mangle", "nat", "security"}, c.Table) &&
		strings.ToUpper(c.Name) == c.Name
	switch {
	case kept && c.Family == "ip":
		return "iptables"
	case kept && c.Family == "ip6":
		return "ip6tables"
	}
	return "nft"
}

// prefixesOf returns the pools, or the other prefixes, of a family.
func (d *denied) prefixesOf(pools bool, bits int) (all []netip.Prefix) {
	for _, p := range d.destinations {
		if p.Addr().BitLen() == bits && d.pools[p] == pools {
			all = append(all, p)
		}
	}
	return all
}

func textsOf(all []netip.Prefix) (texts []string) {
	for _, p := range all {
		texts = append(texts, p.String())
	}
	return texts
}

func portsOf(all []listener) string {
	var ports []uint16
	for _, l := range all {
		addOnce(&ports, l.at.Port())
	}
	slices.SortFunc(ports, cmp.Compare[uint16])
	var words []string
	for _, p := range ports {
		words = append(words, strconv.Itoa(int(p)))
	}
	return nftSet(words)
}

// nftSet formats values as nft reads them.
func nftSet(words []string) string {
	if len(words) > 1 {
		return "{ " + strings.Join(words, ", ") + " }"
	}
	return strings.Join(words, "")
}

func protocolName(n uint32) string {
	if n == udp {
		return "udp"
	}
	return "tcp"
}
