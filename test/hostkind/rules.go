//go:build linux

package hostkind

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"meshd/test/rig"
)

// baseline is what every firewall has that drops what it does not know: without
// these a host has neither a loopback device nor neighbours over IPv6.
const baseline = `table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state { established, related } accept
		ct state invalid drop
		iif lo accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state { established, related } accept
		ct state invalid drop
	}
}
`

// The addresses of the rules in the document, and those of IPv6 in their place.
// Those of containers are the host's.
const (
	documentedPool, pool6 = "10.96.0.0/16", "fd96::/64"
	documentedTasks       = "10.1.1.0/24"
)

// dropping gives the host a firewall that drops what it does not know, with exactly
// the rules that docs/OPERATIONS.md asks for.
func dropping(h *rig.Host) error {
	rules, err := documented()
	if err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString(baseline)
	for _, r := range rules {
		line := func(rule string) { fmt.Fprintf(&text, "add rule inet filter %s %s\n", r.hook, rule) }
		line(strings.ReplaceAll(r.text, documentedTasks, h.Subnet.String()))
		if six := strings.NewReplacer("ip daddr", "ip6 daddr", "ip saddr", "ip6 saddr").Replace(r.text); six != r.text {
			line(strings.NewReplacer(documentedPool, pool6, documentedTasks, h.Subnet6.String()).Replace(six))
		}
	}
	return nft(h, text.String())
}

// rule is one that lets through what meshd lives of.
type rule struct{ hook, text string }

var row = regexp.MustCompile("(?m)^\\| (forward|input) \\| .* \\| `(.*)` \\|$")

// documented reads the rules from docs/OPERATIONS.md.
func documented() (rules []rule, err error) {
	text, err := document("docs/OPERATIONS.md")
	if err != nil {
		return nil, err
	}
	_, section, found := strings.Cut(text, "\n### Firewalls\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		rules = append(rules, rule{m[1], m[2]})
	}
	if len(rules) < 4 || !found {
		return nil, fmt.Errorf("docs/OPERATIONS.md has %d rules in the section Firewalls", len(rules))
	}
	return rules, nil
}

// document reads a file of this repository, from any directory of it.
func document(name string) (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if text, e := os.ReadFile(filepath.Join(dir, name)); e == nil {
			return string(text), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", missing(name)
		}
		dir = up
	}
	return "", err
}

// Reload saves the ruleset of nftables, flushes it, and loads it again, as hosts do
// that keep theirs over a restart.
func Reload(n *rig.Namespace) error {
	saved, err := n.Output("nft", "list", "ruleset")
	if err == nil {
		err = nft(n, "flush ruleset\n"+string(saved))
	}
	return err
}

// runner is a host, or a namespace of it.
type runner interface{ Do(f func() error) error }

// nft runs a script of nft.
func nft(n runner, script string) error { return feed(n, script, "nft", "-f", "-") }

// feed runs a program that reads its standard input.
func feed(n runner, input, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(input)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := n.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if errors.Is(err, exec.ErrNotFound) {
		return missing(program)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out.String())
	}
	return nil
}
