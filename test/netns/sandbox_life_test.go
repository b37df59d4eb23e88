//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/rig"
)

// traces is all that a sandbox could leave in a namespace: rules, routes and
// open sockets.
func traces(t *testing.T, ns *rig.Namespace) string {
	t.Helper()
	var all []string
	for _, cmd := range [][]string{
		{"nft", "list", "ruleset"},
		{"ip", "route", "show", "table", "all"},
		{"ip", "-6", "route", "show", "table", "all"},
	} {
		out, err := ns.Output(cmd[0], cmd[1:]...)
		must(t, err)
		all = append(all, string(out))
	}
	must(t, ns.Do(func() error {
		if text, err := os.ReadFile("/proc/thread-self/net/ip_vs"); err == nil { // on kernels that have IPVS
			all = append(all, string(text))
		}
		for _, f := range []string{"udp", "tcp", "udp6", "tcp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + f)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				if f := strings.Fields(line); len(f) > 3 && f[3] != "06" { // TIME_WAIT
					all = append(all, f[1])
				}
			}
		}
		return nil
	}))
	return strings.Join(all, "\n")
}

// openFiles counts the file descriptors of a daemon.
func openFiles(t *testing.T, n *fleet.Node) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.Proc.PID))
	must(t, err)
	return len(entries)
}

// goroutines asks the daemon how many it has.
func goroutines(ctx context.Context, n *fleet.Node) (count int, err error) {
	var b strings.Builder
	if err := n.API.Metrics(ctx, &b); err != nil {
		return 0, err
	}
	for line := range strings.Lines(b.String()) {
		if _, scanned := fmt.Sscanf(line, "go_goroutines %d", &count); scanned == nil {
			return count, nil
		}
	}
	return 0, errors.New("no go_goroutines in the metrics")
}

// TestSandboxLeavesNothing attaches and detaches, ten times over, and looks for
// what is left in the container, in the daemon, and on disk.
func TestSandboxLeavesNothing(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	ctl(t, n, "network", "create", "other", "--subnet", "10.99.0.0/16", "--subnet6", "fd99::/64")
	run(t, "web", n)
	task := container(t, n, "guest")
	before := traces(t, task.Namespace)
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	const old = "# mine\nnameserver 192.0.2.53\nsearch example.org\noptions ndots:2 edns0\n"
	must(t, os.WriteFile(conf, []byte(old), 0o600))
	cycle := func() {
		t.Helper()
		ctl(t, n, "sandbox", "attach", "--netns", task.Path(), "--network", network+",other", "--name", "guest",
			"--service", "guests", "--resolv-conf", conf)
		must(t, answers(t.Context(), task, "web", dns.TypeA, vips(t, n, network, "web", 1)[0].String()))
		if traces(t, task.Namespace) == before {
			t.Fatal("the test sees nothing of an attached sandbox")
		}
		text, err := os.ReadFile(conf)
		must(t, err)
		if got := string(text); !strings.Contains(got, "nameserver 127.0.0.11\n") ||
			strings.Contains(got, "\nnameserver 192.0.2.53") ||
			!strings.Contains(got, "search example.org\n") || !strings.Contains(got, "options ndots:2 edns0\n") {
			t.Errorf("resolv.conf is\n%s", got)
		}
		ctl(t, n, "sandbox", "detach", "guest")
		if text, _ := os.ReadFile(conf); string(text) != old {
			t.Errorf("resolv.conf was not put back:\n%s", text)
		}
		if after := traces(t, task.Namespace); after != before {
			t.Fatalf("the namespace before:\n%s\nafter:\n%s", before, after)
		}
	}
	cycle() // the first use of anything may open what stays
	files := openFiles(t, n)
	routines, err := goroutines(t.Context(), n)
	must(t, err)
	for range 9 {
		cycle()
	}
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		now, err := goroutines(ctx, n)
		if files2 := openFiles(t, n); err == nil && (now > routines || files2 > files) {
			err = fmt.Errorf("%d goroutines and %d files after nine more, %d and %d before", now, files2, routines, files)
		}
		return err
	})
	text, err := os.ReadFile(filepath.Join(n.DataDir, "sandboxes.json"))
	if err != nil || strings.Contains(string(text), "guest") {
		t.Errorf("sandboxes.json is %s, %v", text, err)
	}
	if tasks := ctl(t, n, "task", "ls", "--service", "guests", "-o", "json"); strings.TrimSpace(tasks) != "[]" {
		t.Errorf("tasks are left: %s", tasks)
	}
	s, err := n.API.Status(t.Context())
	must(t, err)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		if s, err = n.API.Status(ctx); err == nil && s.Sandboxes != 0 {
			err = fmt.Errorf("%d sandboxes are left", s.Sandboxes)
		}
		return err
	})
}

// TestSandboxEndsWithItsContainer kills the process of one sandbox and removes
// the namespace of another: both are noticed, and their tasks go.
func TestSandboxEndsWithItsContainer(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	n, peer := nodes[0], nodes[1]
	createNetwork(t, nodes)
	watcher := sandboxed(t, network, "watcher", peer)[0]
	byPath := sandboxed(t, network, "web", n)[0]
	byPID := container(t, n, "job")
	ctl(t, n, "sandbox", "attach", "--pid", fmt.Sprint(byPID.Server.PID), "--network", network, "--name", "job",
		"--service", "web")
	both := []*fleet.Task{byPath, byPID}
	start, err := n.API.Status(t.Context())
	must(t, err)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return resolves(ctx, watcher, "tasks.web", both) })

	byPID.Server.Kill()
	fleet.Within(t, 10*time.Second,
		func(ctx context.Context) error { return resolves(ctx, watcher, "tasks.web", both[:1]) })
	fleet.Within(t, 10*time.Second, func(context.Context) error { return holdsNothing(t, byPID.Namespace) })

	byPath.Remove()
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		a, err := watcher.Resolve(ctx, "tasks.web", dns.TypeA)
		if err == nil && a.RCode != "NXDOMAIN" {
			err = fmt.Errorf("tasks.web is %s", a)
		}
		return err
	})
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		all, err := n.API.Sandboxes(ctx)
		if err == nil && len(all) > 0 {
			err = fmt.Errorf("there still are %+v", all)
		}
		return err
	})
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		var b strings.Builder
		err := n.API.Metrics(ctx, &b)
		if err == nil && !strings.Contains(b.String(), `meshd_sandbox_changes_total{change="lost"} 2`) {
			err = errors.New("the metrics do not count two lost sandboxes")
		}
		return err
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	lost := map[string]bool{}
	err = n.API.Watch(ctx, control.WatchRequest{From: start.EventIndex, Boot: start.BootID}, func(e control.Event) error {
		if e.Type == control.EventSandboxLost {
			lost[e.Sandbox] = e.Detail != "" && e.Service == "web"
		}
		if len(lost) == 2 {
			return errDone
		}
		return nil
	})
	if !errors.Is(err, errDone) || !lost["job"] || !lost[byPath.Box] {
		t.Errorf("events of lost sandboxes: %v, %v", lost, err)
	}
}

// errDone ends a watch.
var errDone = errors.New("done")

// TestSandboxRulesAreMadeAgain empties the rules of a container, as a firewall
// script in it may: names and VIPs come back by themselves.
func TestSandboxRulesAreMadeAgain(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	web := sandboxed(t, network, "web", n)
	vip := vips(t, n, network, "web", 1)[0]
	must(t, answers(t.Context(), web[0], "web", dns.TypeA, vip.String()))
	if out, err := web[0].Output("nft", "flush", "ruleset"); err != nil {
		t.Fatalf("nft flush ruleset: %v %s", err, out)
	}
	ctl(t, n, "sandbox", "inspect", web[0].Box)
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		err := answers(ctx, web[0], "web", dns.TypeA, vip.String())
		if err == nil && metric(t, n, "meshd_sandbox_redirects_total") == 0 {
			err = errors.New("names resolve, and nothing was made again")
		}
		return err
	})
	_, _ = n.Ctl("lb", "verify") // at once, instead of some time; it exits with 1 if it repaired anything
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return usesBoth(ctx, web[0], web[0].Get, vip, web) })
}

// holdsNothing checks that a namespace has no rule and no socket of meshd.
func holdsNothing(t *testing.T, ns *rig.Namespace) error {
	t.Helper()
	if left := traces(t, ns); strings.Contains(left, "meshd") || strings.Contains(left, "0B00007F") ||
		strings.Contains(left, "10.96.") || strings.Contains(left, "0A60") {
		return fmt.Errorf("the namespace still holds\n%s", left)
	}
	return nil
}

// TestSandboxSurvivesCrash kills the daemon, and starts it again: a connection
// through a VIP goes on all the while, names are back at once, also for a
// client that asks from one and the same port, and a sandbox whose container
// ended meanwhile is gone with its task.
func TestSandboxSurvivesCrash(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	web := sandboxed(t, network, "web", n)
	client := sandboxed(t, network, "client", n)[0]
	doomed := sandboxed(t, network, "doomed", n)[0]
	port := echoServer(t, web[0])
	ctl(t, n, "task", "add", "--network", network, "--service", "chat", "--id", "chat", "--ip", web[0].Addr.String(),
		"--port", fmt.Sprint(port))
	vip, chat := vips(t, n, network, "web", 1)[0], vips(t, n, network, "chat", 1)[0]
	var talk net.Conn
	fleet.Within(t, 10*time.Second, func(ctx context.Context) (err error) {
		talk, err = client.Dial(ctx, "tcp", netip.AddrPortFrom(chat, port).String())
		return err
	})
	defer talk.Close()
	must(t, echoes(talk))
	asker, err := client.Dial(t.Context(), "udp", "127.0.0.11:53")
	must(t, err)
	defer asker.Close()
	fleet.Within(t, 10*time.Second, func(context.Context) error { return asks(asker, "web.", vip) })
	was, err := n.API.Sandboxes(t.Context())
	must(t, err)

	n.Proc.Kill()
	doomed.Remove()
	must(t, echoes(talk))
	got, err := client.Get(t.Context(), vip)
	if err != nil || got != web[0].ID {
		t.Errorf("without a daemon the VIP answers %q, %v", got, err)
	}
	must(t, n.Start(t.Context()))
	fleet.Within(t, 10*time.Second, func(context.Context) error { return asks(asker, "web.", vip) })
	must(t, echoes(talk))
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		now, err := n.API.Sandboxes(ctx)
		if err == nil && (len(now) != 2 || now[0].Name != client.Box || now[1].Name != web[0].Box) {
			err = fmt.Errorf("sandboxes %+v, want two of %+v", now, was)
		}
		for _, b := range now {
			if b.State != control.SandboxReady {
				err = fmt.Errorf("sandbox %+v", b)
			}
		}
		return err
	})
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		return errors.Join(answers(ctx, client, "tasks.doomed", dns.TypeA, "NXDOMAIN"),
			answers(ctx, client, "tasks.web", dns.TypeA, web[0].Addr.String()), usesBoth(ctx, client, client.Get, vip, web))
	})
	must(t, echoes(talk))
	must(t, asks(asker, "web.", vip))
}

// TestSandboxEndIsFinished crashes a daemon in the middle of taking a sandbox
// down: the next life goes on with that.
func TestSandboxEndIsFinished(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	task := sandboxed(t, network, "web", n)[0]
	n.Proc.Kill()
	path := filepath.Join(n.DataDir, "sandboxes.json")
	text, err := os.ReadFile(path)
	must(t, err)
	ending := strings.Replace(string(text), `"id":`, `"ending": true, "id":`, 1)
	if ending == string(text) || holdsNothing(t, task.Namespace) == nil {
		t.Fatalf("this test knows no better how sandboxes are written: %s", text)
	}
	must(t, os.WriteFile(path, []byte(ending), 0o600))
	must(t, n.Start(t.Context()))
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		boxes, err := n.API.Sandboxes(ctx)
		if err == nil && len(boxes) > 0 {
			err = fmt.Errorf("still there: %+v", boxes)
		}
		tasks, err2 := n.API.Tasks(ctx, control.TaskFilter{All: true})
		if err2 == nil && len(tasks) > 0 {
			err2 = fmt.Errorf("still there: %+v", tasks)
		}
		return errors.Join(err, err2, holdsNothing(t, task.Namespace))
	})
}
