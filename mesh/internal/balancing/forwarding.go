package balancing

import (
	"fmt"
	"os"
	"strings"

	"meshd/lb/hostmend"
	"meshd/state"
)

// forwarding says what was done to the host so that it forwards, or what does
// not work since it does not.
func (h *Host) forwarding() []string {
	if h.cfg.Choice == "none" {
		return nil
	}
	var changed []string
	for _, c := range h.changes.Sysctls() {
		if strings.HasSuffix(c.Key, "forward") || strings.HasSuffix(c.Key, "/forwarding") ||
			strings.HasSuffix(c.Key, "/force_forwarding") || strings.HasSuffix(c.Key, "/accept_ra") {
			changed = append(changed, c.String())
		}
	}
	setting := "--forwarding off leaves that to you"
	for _, group := range hostmend.ByChain(h.changes.Rules()) {
		changed = append(changed, "rules in chain "+group[0].ChainID())
		setting = "--forwarding off, and for the rules --firewall tell, leave that to you"
	}
	for _, p := range h.changes.Ports() {
		changed = append(changed, "hairpin mode of port "+p.Name)
	}
	if h.cfg.Forwarding != "off" {
		if len(changed) == 0 {
			return nil
		}
		if len(changed) > maxNamed {
			changed = append(changed[:maxNamed:maxNamed], "and more")
		}
		return []string{fmt.Sprintf("meshd changed this host so that its containers reach VIPs: %s; %s, and meshd cleanup "+
			"puts it back", strings.Join(changed, ", "), setting)}
	}
	var not []string
	for _, f := range []struct {
		family, file string
		used         bool
	}{
		{"IPv4", "/proc/sys/net/ipv4/ip_forward", true},
		{"IPv6", "/proc/sys/net/ipv6/conf/all/forwarding", hasPool6(h.cfg.Source)},
	} {
		if now, err := os.ReadFile(f.file); f.used && err == nil && strings.TrimSpace(string(now)) == "0" {
			not = append(not, f.family)
		}
	}
	if len(not) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("this host does not forward %s packets (forwarding: off): its containers reach VIPs "+
		"only as sandboxes", strings.Join(not, " and "))}
}

// maxNamed bounds a line of status.
const maxNamed = 8

// hasPool6 reports whether a network here has an IPv6 pool.
func hasPool6(source state.Source) bool {
	names, _ := source.Networks()
	for _, name := range names {
		if v := source.View(name); v != nil && v.Def().Subnet6.IsValid() {
			return true
		}
	}
	return false
}
