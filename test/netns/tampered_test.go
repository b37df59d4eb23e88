//go:build linux

package netns

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"meshd/test/fleet"
)

// TestOursRemovedByOthers removes what meshd made in a host's kernel, as the
// restart of a firewall or of a network manager does: VIPs are back in a moment,
// long before the next comparison is due.
func TestOursRemovedByOthers(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	f := fleet.NewTest(t, 2)
	all := f.Rig.Hosts()
	var nodes []*fleet.Node
	for i, h := range all {
		n := f.AddNode(h, []string{"--lb-verify", "1h"}, all[:i]...)
		must(t, n.Start(t.Context()))
		nodes = append(nodes, n)
	}
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return nodes[1].Members(ctx, 2) })
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	host := nodes[0].Host
	for _, command := range []string{
		"ip rule flush", "nft flush ruleset", "ip rule delete pref 109",
		"ip route flush table 109", "nft delete table ip meshd", "ip link set lo down; ip link set lo up",
	} {
		answersAt(t, tasks[0], "web", "10.96.0.0/16")
		for step := range strings.SplitSeq(command, "; ") {
			inside(t, host, step)
		}
		begin := time.Now()
		fleet.Within(t, 15*time.Second, func(ctx context.Context) error {
			_, err := nodes[0].Ctl("lb", "verify", "--dry-run")
			return err
		})
		if command == "ip rule flush" { // it takes the host's own rules as well
			inside(t, host, "ip rule add pref 32766 lookup main")
		}
		t.Logf("%s: as before after %v", command, time.Since(begin).Round(10*time.Millisecond))
	}
	answersAt(t, tasks[0], "web", "10.96.0.0/16")
	if out := ctl(t, nodes[0], "metrics"); strings.Contains(out, `meshd_lb_verifies_prompted_total{sandbox=""} 0`) {
		t.Error("no comparison was prompted")
	}
}
