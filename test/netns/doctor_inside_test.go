//go:build linux

package netns

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
)

// TestDoctorInside has containers with load balancers of their own that are against
// meshd inside: each is named, and cured by what the doctor says, typed on the host.
// Of those whose filters let something of the kind through nothing is said.
func TestDoctorInside(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"nft", "nsenter", "sysctl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	const outDrops = "add table inet own; add chain inet own out { type filter hook output priority 0; policy drop; }; " +
		"add rule inet own out oifname lo accept; add rule inet own out ct state established accept"
	for _, c := range []struct{ name, inside, code, says string }{
		{"a good one", "true", "", ""},
		{"output drops", "nft '" + outDrops + "'", "firewall-output", "the policy of chain out of table inet own (hook output) is drop: connections of its processes to VIPs do not get through"},
		{"output lets something through", "nft '" + outDrops + "; add rule inet own out tcp dport 80 accept'", "", ""},
		{"input drops", "iptables-legacy -P INPUT DROP", "firewall-input", "questions for names"},
		{"input lets the task's port through", "nft 'add table ip own; add chain ip own in { type filter hook input priority 0; policy drop; }; add rule ip own in iifname lo accept; add rule ip own in ct state established accept; add rule ip own in meta l4proto { tcp, udp } th dport 80 accept'", "", ""},
		{"IPv6 is off", "sysctl -w net.ipv6.conf.lo.disable_ipv6=1", "ipv6-disabled", "IPv6 is switched off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, nodes := fleet.Up(t, 1)
			n := nodes[0]
			ctl(t, n, "network", "create", network, "--subnet", "10.96.0.0/16", "--subnet6", "fd96::/64")
			task := sandboxed(t, network, "web", n)[0]
			if strings.HasPrefix(c.inside, "iptables-legacy") {
				if _, err := task.Output("iptables-legacy", "-L", "-n"); err != nil {
					t.Skip("iptables has no tables of its own here")
				}
			}
			if out, err := task.Output("sh", "-ec", c.inside); err != nil {
				t.Fatalf("%s: %s %v", c.inside, out, err)
			}
			if c.code == "" {
				if d, err := diagnosis(n); err != nil || len(d.Findings) > 0 {
					t.Errorf("doctor finds %+v %v", d.Findings, err)
				}
				return
			}
			var d control.Doctor
			fleet.Within(t, 20*time.Second, func(context.Context) (err error) {
				if d, err = diagnosis(n); err == nil && !slices.ContainsFunc(d.Findings, func(f control.HostFinding) bool {
					return f.Code == c.code && strings.HasPrefix(f.What, "sandbox "+task.Box+": ") && strings.Contains(f.What, c.says)
				}) {
					err = fmt.Errorf("doctor does not find %s (%s) but %+v", c.code, c.says, d.Findings)
				}
				return err
			})
			warnsOrDegraded(t, n, c.says)
			(&crippled{}).cure(t, n, d)
			fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
				d, err := diagnosis(n)
				if err == nil && len(d.Findings) > 0 {
					err = fmt.Errorf("after its own advice doctor finds %+v", d.Findings)
				}
				return err
			})
		})
	}
}
