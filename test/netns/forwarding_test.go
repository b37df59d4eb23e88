//go:build linux

package netns

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// TestForwardingIsPutBack starts meshd on a host that does not forward, and one
// that is configured to leave it so. What meshd changes is logged, remembered over
// a kill, and put back by cleanup unless another program changed it since.
func TestForwardingIsPutBack(t *testing.T) {
	t.Parallel()
	const v4, v6, device, router = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.tasks.forwarding",
		"net.ipv6.conf.eth0.accept_ra"
	const other = "net.ipv6.conf.tasks.accept_ra"
	f := fleet.NewTest(t, 2)
	all := f.Rig.Hosts()
	auto, off := f.AddNode(all[0], nil), f.AddNode(all[1], []string{"--forwarding", "off"}, all[0])
	for _, h := range all {
		for _, s := range [][2]string{{v4, "0"}, {v6, "0"}, {device, "1"}, {router, "1"}, {other, "1"}} {
			must(t, h.Sysctl(s[0], s[1]))
		}
	}
	must(t, auto.Start(t.Context()))
	must(t, off.Start(t.Context()))
	ctl(t, auto, "network", "create", network, "--subnet", "10.96.0.0/16", "--subnet6", "fd77:0:0:96::/64")
	runIn(t, off, network, "web", 1)
	warns(t, auto, v4+"=1 (was 0)", v6+"=1 (was 0)", router+"=2 (was 1)")
	warns(t, off, "does not forward IPv4 and IPv6 packets (forwarding: off)")
	settings(t, auto.Host, v4, "1", v6, "1", router, "2", other, "2")
	settings(t, off.Host, v4, "0", v6, "0", router, "1", other, "1")

	saved := func(context.Context) error { // all of them: the record is written beside the changes, not before each
		for _, key := range []string{"ipv4/ip_forward", "tasks/accept_ra", "ipv6/conf/all/forwarding"} {
			out, err := auto.Host.Output("cat", auto.DataDir+"/sysctls.json")
			if err != nil {
				return err
			}
			if !strings.Contains(string(out), key) {
				return fmt.Errorf("%s is not recorded yet: %s", key, out)
			}
		}
		return nil
	}
	fleet.Within(t, 5*time.Second, saved)
	auto.Proc.Kill()
	must(t, auto.Start(t.Context()))
	warns(t, auto, v4+"=1 (was 0)")
	auto.Proc.Kill()
	must(t, auto.Host.Sysctl(other, "0")) // somebody's decision
	clean := func(flags ...string) string {
		out, err := auto.Host.Output(f.Meshd, append([]string{"cleanup", "--data-dir", auto.DataDir, "--socket", auto.Socket},
			flags...)...)
		if err != nil {
			t.Fatalf("cleanup %v: %s %v", flags, out, err)
		}
		return string(out)
	}
	if out := clean("--dry-run"); !strings.Contains(out, "would put back sysctl "+v4+"=1 (was 0)") {
		t.Errorf("dry run: %s", out)
	}
	settings(t, auto.Host, v4, "1", v6, "1", router, "2", other, "0")
	out := clean()
	for _, want := range []string{"put back sysctl " + v4 + "=1 (was 0)", "left as it is: sysctl " + other +
		"=0: somebody else set it"} {
		if !strings.Contains(out, want) {
			t.Errorf("cleanup says %s, not %q", out, want)
		}
	}
	settings(t, auto.Host, v4, "0", v6, "0", device, "1", router, "1", other, "0")
	if out := clean(); strings.Contains(out, "sysctl") {
		t.Errorf("again: %s", out)
	}
}

// warns waits until a node's status has all these texts among its warnings.
func warns(t *testing.T, n *fleet.Node, want ...string) {
	t.Helper()
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		s, err := n.API.Status(ctx)
		for _, w := range want {
			if text := strings.Join(s.Warnings, "\n"); err == nil && !strings.Contains(text, w) {
				err = fmt.Errorf("%s warns of %q, not of %q", n.Host.Name, text, w)
			}
		}
		return err
	})
}

// settings compares sysctls of a host with pairs of a name and a value.
func settings(t *testing.T, h *rig.Host, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		path := "/proc/sys/" + strings.ReplaceAll(pairs[i], ".", "/")
		if got := strings.TrimSpace(inside(t, h, "cat "+path)); got != pairs[i+1] {
			t.Errorf("%s: %s is %s, not %s", h.Name, pairs[i], got, pairs[i+1])
		}
	}
}

// TestRedefinitionKeepsThePool joins a node that carries another, older pool of
// a network that runs: the hosts that serve it go on serving what they have, say
// that it is disputed, and the newcomer's services do not end either.
func TestRedefinitionKeepsThePool(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 3)
	all := f.Rig.Hosts()
	var nodes []*fleet.Node
	for i, h := range all {
		nodes = append(nodes, f.AddNode(h, nil, all[:i]...))
	}
	must(t, nodes[0].Start(t.Context()))
	must(t, nodes[1].Start(t.Context()))
	createNetwork(t, nodes[:2])
	tasks := run(t, "web", nodes[:2]...)
	vip := answersAt(t, tasks[0], "web", "10.96.0.0/16")
	carries(t, nodes[2], network, "10.98.0.0/16")
	must(t, nodes[2].Start(t.Context()))
	newcomer := runIn(t, nodes[2], network, "api", 1)
	warnsOrDegraded(t, nodes[0], "10.98.0.0/16")
	warnsOrDegraded(t, nodes[2], "10.9")
	fleet.Always(t, 3*time.Second, func(ctx context.Context) error {
		for i, n := range nodes[:2] {
			if pools := inside(t, n.Host, "nft list set ip meshd pool"); !strings.Contains(pools, "10.96.0.0/16") ||
				strings.Contains(pools, "10.98") {
				return fmt.Errorf("%s has programmed %s", n.Host.Name, pools)
			}
			if _, err := tasks[i].Get(ctx, vip); err != nil {
				return err
			}
		}
		return nil
	})
	for _, n := range nodes[:2] { // also in another life
		n.Proc.Kill()
		must(t, n.Start(t.Context()))
	}
	for _, task := range tasks {
		if again := answersAt(t, task, "web", "10.96.0.0/16"); again != vip {
			t.Errorf("after a restart web is %s, not %s", again, vip)
		}
	}
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		_, err := newcomer.Get(ctx, tasks[0].Addr)
		return err
	})
}

// warnsOrDegraded waits until a node's status says something of that text.
func warnsOrDegraded(t *testing.T, n *fleet.Node, want string) {
	t.Helper()
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		s, err := n.API.Status(ctx)
		text := strings.Join(append(append(s.Warnings, s.Degraded...), s.Conflicts...), "\n")
		if err == nil && !strings.Contains(text, want) {
			err = fmt.Errorf("%s says %q, nothing of %q", n.Host.Name, text, want)
		}
		return err
	})
}
