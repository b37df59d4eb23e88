//go:build linux

package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/rig"
)

// inside runs a program in the host's namespace; it must succeed.
func inside(t *testing.T, h *rig.Host, command string) string {
	t.Helper()
	args := strings.Fields(command)
	out, err := h.Output(args[0], args[1:]...)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

// exitCode returns the exit code of a program that ended.
func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// verify runs "meshctl lb verify -o json" and returns its reply and exit code.
func verify(t *testing.T, n *fleet.Node, flags ...string) (reply control.LBVerifyReply, code int) {
	t.Helper()
	out, err := n.Ctl(append([]string{"lb", "verify", "-o", "json"}, flags...)...)
	if jsonErr := json.Unmarshal([]byte(out), &reply); jsonErr != nil || len(reply.Reports) == 0 {
		t.Fatalf("%s\n%v, %v", out, err, jsonErr)
	}
	return reply, exitCode(err)
}

// served waits until the host's balancer is in sync with so many services, and
// the VIP answers.
func served(t *testing.T, n *fleet.Node, from *fleet.Task, services int) {
	t.Helper()
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		table, err := n.API.LB(ctx, control.LBRequest{Network: network})
		if err != nil || !table.InSync || len(table.Services) != services {
			return fmt.Errorf("table %+v, %w", table, err)
		}
		_, err = from.Get(ctx, table.Services[0].VIP)
		return err
	})
}

// TestLBVerifyAndCleanup changes a host's rules by hand in every place: lb
// verify says what, repairs it, and the daemon does by itself; and once the
// daemon is gone, cleanup removes what is ours and nothing else.
func TestLBVerifyAndCleanup(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 1)
	for _, tool := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	host := f.Rig.Hosts()[0]
	n := f.AddNode(host, []string{"--lb-verify", "1h"})
	must(t, n.Start(t.Context()))
	createNetwork(t, []*fleet.Node{n})
	tasks := run(t, "web", n, n)
	served(t, n, tasks[0], 2)
	if reply, code := verify(t, n); code != 0 || !reply.InSync || reply.Reports[0].Services != 2 {
		t.Fatalf("untouched: exit code %d, %+v", code, reply)
	}

	for _, c := range meddling(t, n, tasks) {
		before := repairs(t, n)
		inside(t, host, c.command)
		dry, code := verify(t, n, "--dry-run")
		first := code == 0 && repairs(t, n) > before // the daemon was, which notices by itself
		if text := fmt.Sprint(dry); !first && (code != 1 || !strings.Contains(text, c.says) || dry.Reports[0].Repaired != 0) {
			t.Errorf("after %q, a dry run: exit code %d, %s", c.command, code, text)
		}
		reply, code := verify(t, n)
		first = code == 0 && repairs(t, n) > before
		if text := fmt.Sprint(reply); !first && (code != 1 || !strings.Contains(text, c.says) ||
			reply.Reports[0].Repaired != reply.Reports[0].Found) {
			t.Errorf("after %q: exit code %d, %s", c.command, code, text)
		}
		if again, code := verify(t, n); code != 0 || !again.InSync {
			t.Errorf("after the repair of %q: exit code %d, %+v", c.command, code, again)
		}
		served(t, n, tasks[0], 2)
	}
	quick := f.AddNode(host, []string{"--lb-verify", "1s"})
	repairsByItself(t, n, quick, host, tasks)
	verifiesSandbox(t, quick, tasks[1])
	cleansUp(t, f, quick, host, tasks[1])
}

// repairs returns how often a node's host has been repaired so far.
func repairs(t *testing.T, n *fleet.Node) (count int) {
	t.Helper()
	_, after, found := strings.Cut(ctl(t, n, "metrics"), "\nmeshd_lb_repairs_total{sandbox=\"\"} ")
	if _, err := fmt.Sscan(after, &count); !found || err != nil {
		t.Fatalf("no number of repairs: %v", err)
	}
	return count
}

// meddle is something to do by hand, and what lb verify must say of it.
type meddle struct{ command, says string }

// meddling returns what can be done to the node's driver.
func meddling(t *testing.T, n *fleet.Node, tasks []*fleet.Task) []meddle {
	t.Helper()
	table, err := n.API.LB(t.Context(), control.LBRequest{Network: network})
	must(t, err)
	common := []meddle{
		{"nft flush chain ip meshd guard", "rule 1 of chain guard of nftables table ip meshd"},
		{"nft delete table ip meshd", "chain guard of nftables table ip meshd"},
		{"ip route del local 10.96.0.0/16 dev lo table 109", "local route of pool 10.96.0.0/16"},
		{"ip rule del to 10.96.0.0/16 lookup 109", "routing rule 109 of pool 10.96.0.0/16"},
		{"ip rule del to 10.96.0.0/16 lookup main", "routing rule 108 of pool 10.96.0.0/16"},
		{"ip route add local 10.96.0.0/16 dev lo table local proto 109", "route of pool 10.96.0.0/16 in table local"},
		{"nft flush ruleset", "chain masq of nftables table ip6 meshd"},
	}
	task := tasks[0].Addr.String()
	if table.Driver == "nft" {
		return append(common, []meddle{
			{"nft flush map inet meshd_nat svc4", "service 10.96."},
			{"nft flush map inet meshd_nat eps4", "backend " + task},
			{"nft flush chain inet meshd_nat services4", "rule 1 of chain services4"},
		}...)
	}
	if _, err := exec.LookPath("ipvsadm"); err != nil || table.Driver != "ipvs" {
		t.Skipf("the balancer is %s (%s), and ipvsadm: %v", table.Driver, table.Why, err)
	}
	vip := table.Services[0].VIP.String()
	at := " -t " + vip + ":80"
	return append(common, []meddle{
		{"ipvsadm -D" + at, "missing service " + vip + ":80/tcp"},
		{"ipvsadm -E" + at + " -s lc", "service " + vip + ":80/tcp"},
		{"ipvsadm -e" + at + " -r " + task + ":80 -m -w 7", "backend " + task + ":80 of service " + vip + ":80/tcp weight 7"},
		{"ipvsadm -d" + at + " -r " + task + ":80", "backend " + task + ":80 of service " + vip + ":80/tcp"},
		{"ipvsadm -a" + at + " -r 10.1.1.250:80 -m", "backend 10.1.1.250:80 of service " + vip + ":80/tcp"},
		{"ipvsadm -C", "service " + vip + ":80/udp"},
	}...)
}

// repairsByItself replaces the daemon by one that verifies often.
func repairsByItself(t *testing.T, n, quick *fleet.Node, host *rig.Host, tasks []*fleet.Task) {
	t.Helper()
	must(t, n.Proc.Stop(10*time.Second))
	must(t, quick.Start(t.Context()))
	n = quick
	served(t, n, tasks[0], 2)
	inside(t, host, "nft flush chain ip meshd guard")
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		s, err := n.API.Status(ctx)
		if err != nil {
			return err
		}
		if text := fmt.Sprint(s.Warnings); !strings.Contains(text, "chain guard of nftables table ip meshd") {
			return fmt.Errorf("warnings %s", text)
		}
		out := inside(t, host, "nft list chain ip meshd guard")
		if !strings.Contains(out, "@pool") {
			return fmt.Errorf("the chain is %s", out)
		}
		return nil
	})
	served(t, n, tasks[0], 2)
	metrics := ctl(t, n, "metrics")
	for _, want := range []string{
		`meshd_lb_drift_total{area="rule",kind="missing",sandbox=""}`, `meshd_lb_verifies_total{result="drift",sandbox=""} 1`,
		`meshd_lb_operations_total{kind="set-pool",result="failed",sandbox=""} 0`, "meshd_lb_apply_seconds_bucket",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// verifiesSandbox attaches a task's namespace and changes its rules by hand.
func verifiesSandbox(t *testing.T, n *fleet.Node, task *fleet.Task) {
	t.Helper()
	ctl(t, n, "sandbox", "attach", "--netns", task.Path(), "--network", network, "--name", "box")
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		table, err := n.API.LB(ctx, control.LBRequest{Sandbox: "box"})
		if err == nil && (!table.InSync || len(table.Services) != 2 || table.Sandbox != "box") {
			err = fmt.Errorf("the sandbox has %+v", table)
		}
		return err
	})
	if out, err := task.Output("nft", "flush", "chain", "ip", "meshd", "guard"); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	reply, code := verify(t, n, "--sandbox", "box") // or the daemon was first: it looks every second
	if len(reply.Reports) != 1 || reply.Reports[0].Sandbox != "box" || code == 1 && reply.Reports[0].Repaired == 0 {
		t.Errorf("exit code %d, %+v", code, reply)
	}
	status, err := n.API.Status(t.Context())
	must(t, err)
	if text := fmt.Sprint(status.Warnings); !strings.Contains(text, "of sandbox box was changed by someone else") {
		t.Errorf("the status does not tell of the sandbox: %s", text)
	}
	if reply, code := verify(t, n); code != 0 || len(reply.Reports) != 2 || reply.Reports[1].Sandbox != "box" {
		t.Errorf("host and sandbox: exit code %d, %+v", code, reply)
	}
	if _, err := n.Ctl("lb", "ls", "--sandbox", "nobody"); exitCode(err) != 1 {
		t.Errorf("lb ls of a sandbox that is not there: %v", err)
	}
	if metrics := ctl(t, n, "metrics"); !strings.Contains(metrics, `meshd_lb_services{sandbox="box"} 2`) {
		t.Error("the metrics do not tell of the sandbox")
	}
}

// cleansUp removes what the daemon leaves, beside objects of other programs.
func cleansUp(t *testing.T, f *fleet.Fleet, n *fleet.Node, host *rig.Host, box *fleet.Task) {
	t.Helper()
	inside(t, host, "nft add table inet foreign")
	inside(t, host, "ip route add local 10.77.0.0/16 dev lo table local")
	table, err := n.API.LB(t.Context(), control.LBRequest{Network: network})
	must(t, err)
	cleanup := func(flags ...string) (string, int) {
		out, err := host.Output(f.Meshd, append([]string{"cleanup", "--data-dir", n.DataDir, "--socket", n.Socket},
			flags...)...)
		return string(out), exitCode(err)
	}
	ours := []string{"nftables table ip meshd (", "nftables table ip6 meshd (", "local route of pool 10.96.0.0/16"}
	if table.Driver == "ipvs" {
		inside(t, host, "ipvsadm -A -t 192.0.2.1:80 -s rr")
		ours = append(ours, "virtual service "+table.Services[0].VIP.String()+":80/tcp (2 backends)")
	} else {
		ours = append(ours, "nftables table inet meshd_nat (2 services)")
	}
	if out, code := cleanup(); code != 1 || out != "" {
		t.Errorf("beside the daemon: exit code %d, %s", code, out)
	}
	must(t, n.Proc.Stop(10*time.Second))
	before := inside(t, host, "nft list tables")
	for _, c := range []struct{ flags, verb string }{{"--dry-run", "would remove"}, {"", "removed"}} {
		out, code := cleanup(strings.Fields(c.flags)...)
		for _, what := range ours {
			if !strings.Contains(out, "host: "+c.verb+" "+what) {
				t.Errorf("cleanup %s: exit code %d, %s; want %s", c.flags, code, out, what)
			}
		}
		for _, what := range append(ours, "nftables table ip meshd_dns") {
			if what, _, _ = strings.Cut(what, "("); !strings.Contains(out, "sandbox box: "+c.verb+" "+what) {
				t.Errorf("cleanup %s: exit code %d, %s; want %s in the sandbox", c.flags, code, out, what)
			}
		}
		if code != 0 || strings.Contains(out, "foreign") || strings.Contains(out, "10.77") {
			t.Errorf("cleanup %s: exit code %d, %s", c.flags, code, out)
		}
		if now := inside(t, host, "nft list tables"); c.flags != "" && now != before {
			t.Errorf("a dry run left %s", now)
		}
	}
	if out, code := cleanup(); code != 0 || out != "host: nothing of meshd's\nsandbox box: nothing of meshd's\n" {
		t.Errorf("again: exit code %d, %s", code, out)
	}
	if tables := inside(t, host, "nft list tables"); !strings.Contains(tables, "foreign") ||
		strings.Contains(tables, "meshd") {
		t.Errorf("tables left: %s", tables)
	}
	if table.Driver == "ipvs" {
		if left := inside(t, host, "ipvsadm -Sn"); strings.TrimSpace(left) != "-A -t 192.0.2.1:80 -s rr" {
			t.Errorf("IPVS services left: %s", left)
		}
	}
	if tables, err := box.Output("nft", "list", "tables"); err != nil || len(tables) > 0 {
		t.Errorf("in the sandbox: %s, %v", tables, err)
	}
	if routes := inside(t, host, "ip route show table all"); !strings.Contains(routes, "10.77.0.0/16") ||
		strings.Contains(routes, "10.96.0.0/16") {
		t.Errorf("routes left: %s", routes)
	}
	if rules := inside(t, host, "ip rule"); strings.Count(rules, "\n") != 3 {
		t.Errorf("routing rules left: %s", rules)
	}
	must(t, host.Do(func() error {
		forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		if strings.TrimSpace(string(forward)) != "1" {
			t.Errorf("a sysctl was taken back: %s", forward)
		}
		return err
	}))
}
