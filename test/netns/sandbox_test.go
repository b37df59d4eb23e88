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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/rig"
)

// sandboxed starts one task of the service on each of the nodes, each attached.
func sandboxed(t *testing.T, network, service string, nodes ...*fleet.Node) []*fleet.Task {
	t.Helper()
	var tasks []*fleet.Task
	for i, n := range nodes {
		id := fmt.Sprintf("%s-%s-%s", network, service, n.Host.Name)
		task, err := n.Run(t.Context(), fleet.Spec{Network: network, Service: service, Slot: i + 1, ID: id, Sandbox: true})
		must(t, err)
		tasks = append(tasks, task)
	}
	return tasks
}

// container makes a container with a process in it, and nothing attached.
func container(t *testing.T, n *fleet.Node, name string) *fleet.Task {
	t.Helper()
	where, err := n.Host.AddTask(name)
	must(t, err)
	c := &fleet.Task{Task: where, Node: n, ID: name, Box: name}
	must(t, c.Serve(t.Context()))
	return c
}

// defined waits until each node knows so many networks.
func defined(t *testing.T, count int, nodes ...*fleet.Node) {
	t.Helper()
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		for _, n := range nodes {
			all, err := n.API.Networks(ctx)
			if err != nil || len(all) != count {
				return fmt.Errorf("%s knows networks %v, %w", n.Host.Name, all, err)
			}
		}
		return nil
	})
}

// answers checks what a name is inside a container, over UDP and TCP.
func answers(ctx context.Context, from *fleet.Task, name string, qtype uint16, want string) error {
	for _, proto := range []string{"udp", "tcp"} {
		a, err := from.ResolveOver(ctx, proto, name, qtype)
		if err != nil {
			return err
		}
		if a.String() != want {
			return fmt.Errorf("in %s over %s, %s is %s, want %s", from.ID, proto, name, a, want)
		}
	}
	return nil
}

// vips returns the VIPs of a service, IPv4 first, when it has as many.
func vips(t *testing.T, n *fleet.Node, network, service string, count int) (all []netip.Addr) {
	t.Helper()
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		s, err := n.API.Service(ctx, control.ServiceRef{Network: network, Name: service})
		if err == nil && len(s.VIPs) != count {
			err = fmt.Errorf("%s has the VIPs %v", service, s.VIPs)
		}
		all = s.VIPs
		return err
	})
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// TestSandbox attaches a container by a process in it to two networks, and
// looks at names, scope and traffic from inside.
func TestSandbox(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	for i, name := range []string{"front", "back", "secret"} {
		ctl(t, nodes[0], "network", "create", name, "--subnet", fmt.Sprintf("10.%d.0.0/16", 96+i), "--subnet6", fmt.Sprintf("fd96:%d::/64", i))
	}
	defined(t, 3, nodes...)
	front := sandboxed(t, "front", "api", nodes...)
	back := sandboxed(t, "back", "api", nodes[1])
	sandboxed(t, "back", "db", nodes[0])
	sandboxed(t, "secret", "vault", nodes[1])
	for _, task := range front { // over IPv6 as well
		_, err := task.Start("server6", "/proc/self/exe", fleet.ServeArg, task.ID, netip.AddrPortFrom(task.Addr6, fleet.TaskPort).String())
		must(t, err)
		ctl(t, nodes[task.Host.Index-1], "task", "add", "--network", "front", "--service", "six", "--id", "six-"+task.Host.Name, "--ip", task.Addr6.String(), "--port", "80")
	}
	client := container(t, nodes[0], "client")
	out := ctl(t, nodes[0], "sandbox", "attach", "--pid", fmt.Sprint(client.Server.PID), "--network", "back,front", "--name", "client",
		"--service", "clients", "--port", "80")
	if strings.TrimSpace(out) != "client" {
		t.Errorf("attach printed %q", out)
	}
	ofBack, ofFront := vips(t, nodes[0], "back", "api", 2), vips(t, nodes[0], "front", "api", 2)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		return errors.Join(
			answers(ctx, client, "api", dns.TypeA, ofBack[0].String()), // the first network wins
			answers(ctx, client, "tasks.api", dns.TypeA, back[0].Addr.String()),
			answers(ctx, client, "api.front", dns.TypeA, ofFront[0].String()),
			answers(ctx, client, "api.front", dns.TypeAAAA, ofFront[1].String()),
			answers(ctx, client, "api.front.mesh.internal", dns.TypeA, ofFront[0].String()),
			answers(ctx, client, "vault", dns.TypeA, "NXDOMAIN"),
			answers(ctx, client, "vault.secret.mesh.internal", dns.TypeA, "NXDOMAIN"),
			answers(ctx, front[0], "db", dns.TypeA, "NXDOMAIN"),
			answers(ctx, front[1], "clients.front", dns.TypeA, vips(t, nodes[0], "front", "clients", 2)[0].String()),
		)
	})
	six := vips(t, nodes[0], "front", "six", 2)[1]
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return usesBoth(ctx, client, client.Get, ofFront[0], front) })
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return usesBoth(ctx, client, client.Echo, ofFront[0], front) })
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return usesBoth(ctx, client, client.Get, six, front) })
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return usesBoth(ctx, front[0], front[0].Get, ofFront[0], front) }) // itself included
	// The load balancing is the container's own: the host's is not on the way.
	table, err := nodes[0].API.LB(t.Context(), control.LBRequest{Network: "front", Service: "api", Sandbox: "client"})
	must(t, err)
	if len(table.Services) == 0 || !table.InSync {
		t.Errorf("the sandbox's own table: %+v", table)
	}
	if _, err := client.Get(t.Context(), netip.MustParseAddr("10.98.0.1")); err == nil {
		t.Error("an address of a network that the sandbox is not in answers")
	}
	boxes, err := nodes[0].API.Sandboxes(t.Context())
	must(t, err)
	for _, b := range boxes {
		if b.State != control.SandboxReady || b.LBDriver == "none" || b.DNS == "" {
			t.Errorf("sandbox %+v", b)
		}
	}
}

// usesBoth asks a VIP until every task has answered, and nobody else has.
func usesBoth(ctx context.Context, from *fleet.Task, ask func(context.Context, netip.Addr) (string, error), vip netip.Addr, tasks []*fleet.Task) error {
	count, err := fleet.Spread(8, func() (string, error) { return ask(ctx, vip) })
	if err != nil {
		return fmt.Errorf("from %s: %w", from.ID, err)
	}
	for _, task := range tasks {
		if count[task.ID] == 0 {
			return fmt.Errorf("from %s to %s: %v, want some of %s", from.ID, vip, count, task.ID)
		}
	}
	if len(count) != len(tasks) {
		return fmt.Errorf("from %s to %s: %v, want %d servers", from.ID, vip, count, len(tasks))
	}
	return nil
}

// TestSandboxKeepsContainersOwnServer attaches a container with a name server
// of its own on every address: both go on.
func TestSandboxKeepsContainersOwnServer(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 1)
	createNetwork(t, nodes)
	task := container(t, nodes[0], "named")
	own, err := task.ListenPacket(t.Context(), "udp4", "0.0.0.0:53")
	must(t, err)
	defer own.Close()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeNotAuth) // as nobody else answers
		_ = w.WriteMsg(m)
	})
	server := &dns.Server{PacketConn: own, Handler: handler}
	go func() { _ = server.ActivateAndServe() }()
	asked := func(addr string) string {
		t.Helper()
		c, err := task.Dial(t.Context(), "udp", addr)
		must(t, err)
		defer c.Close()
		m, _, err := (&dns.Client{Timeout: 2 * time.Second}).ExchangeWithConnContext(t.Context(), new(dns.Msg).SetQuestion("web.", dns.TypeA), &dns.Conn{Conn: c})
		must(t, err)
		return dns.RcodeToString[m.Rcode]
	}
	if got := asked("127.0.0.11:53"); got != "NOTAUTH" {
		t.Fatalf("before: 127.0.0.11 answers %s, want the container's own server", got)
	}
	ctl(t, nodes[0], "sandbox", "attach", "--netns", task.Path(), "--network", network, "--name", "named", "--service", "web")
	vip := vips(t, nodes[0], network, "web", 1)[0]
	must(t, answers(t.Context(), task, "web", dns.TypeA, vip.String()))
	for _, addr := range []string{"127.0.0.1:53", task.Addr.String() + ":53"} {
		if got := asked(addr); got != "NOTAUTH" {
			t.Errorf("%s answers %s, want the container's own server", addr, got)
		}
	}
	ctl(t, nodes[0], "sandbox", "detach", "named")
	if got := asked("127.0.0.11:53"); got != "NOTAUTH" {
		t.Errorf("after: 127.0.0.11 answers %s, want the container's own server", got)
	}
}

// traces is all that a sandbox could leave in a namespace: rules, routes and
// open sockets.
func traces(t *testing.T, ns *rig.Namespace) string {
	t.Helper()
	var all []string
	for _, cmd := range [][]string{{"nft", "list", "ruleset"}, {"ip", "route", "show", "table", "all"}, {"ip", "-6", "route", "show", "table", "all"}} {
		out, err := ns.Output(cmd[0], cmd[1:]...)
		must(t, err)
		all = append(all, string(out))
	}
	must(t, ns.Do(func() error {
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
		if got := string(text); !strings.Contains(got, "nameserver 127.0.0.11\n") || strings.Contains(got, "192.0.2.53") ||
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
	ctl(t, n, "sandbox", "attach", "--pid", fmt.Sprint(byPID.Server.PID), "--network", network, "--name", "job", "--service", "web")
	both := []*fleet.Task{byPath, byPID}
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return resolves(ctx, watcher, "tasks.web", both) })

	byPID.Server.Kill()
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return resolves(ctx, watcher, "tasks.web", both[:1]) })
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
}

// holdsNothing checks that a namespace has no rule and no socket of meshd.
func holdsNothing(t *testing.T, ns *rig.Namespace) error {
	t.Helper()
	if left := traces(t, ns); strings.Contains(left, "meshd") || strings.Contains(left, "0B00007F") || strings.Contains(left, "10.96.") {
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
	ctl(t, n, "task", "add", "--network", network, "--service", "chat", "--id", "chat", "--ip", web[0].Addr.String(), "--port", fmt.Sprint(port))
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
		return errors.Join(answers(ctx, client, "tasks.doomed", dns.TypeA, "NXDOMAIN"), answers(ctx, client, "tasks.web", dns.TypeA, web[0].Addr.String()), usesBoth(ctx, client, client.Get, vip, web))
	})
	must(t, echoes(talk))
	must(t, asks(asker, "web.", vip))
}

// echoServer serves lines inside a task, for as long as the test runs.
func echoServer(t *testing.T, task *fleet.Task) (port uint16) {
	t.Helper()
	l, err := task.Listen(t.Context(), "tcp4", task.Addr.String()+":0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 64)
				for {
					k, err := c.Read(b)
					if err != nil {
						return
					}
					_, _ = c.Write(b[:k])
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// echoes sends a word over an open connection and wants it back.
func echoes(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	b := make([]byte, 8)
	k, err := c.Read(b)
	if err == nil && string(b[:k]) != "word" {
		err = fmt.Errorf("got back %q", b[:k])
	}
	return err
}

// asks resolves a name over an open socket.
func asks(c net.Conn, name string, want netip.Addr) error {
	_ = c.SetDeadline(time.Now().Add(time.Second))
	conn := &dns.Conn{Conn: c}
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	if err := conn.WriteMsg(q); err != nil {
		return err
	}
	m, err := conn.ReadMsg()
	for err == nil && m.Id != q.Id { // of a question that was given up
		m, err = conn.ReadMsg()
	}
	if err != nil {
		return err
	}
	if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != want.String() {
		return fmt.Errorf("%s is %v, want %s", name, m, want)
	}
	return nil
}

// TestSandboxRefusals asks for what cannot be, and wants to be told why.
func TestSandboxRefusals(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	task := container(t, n, "once")
	ended := container(t, n, "ended")
	pid := fmt.Sprint(ended.Server.PID)
	ended.Server.Kill()
	bare, err := n.Host.AddTask("bare")
	must(t, err)
	must(t, bare.LinkDown("eth0"))
	out, err := bare.Output("ip", "address", "flush", "dev", "eth0")
	if err != nil {
		t.Fatalf("flush: %v %s", err, out)
	}
	before := traces(t, task.Namespace)
	attach := func(more ...string) []string {
		return append([]string{"sandbox", "attach", "--network", network}, more...)
	}
	for _, tt := range []struct {
		args []string
		says string
	}{
		{attach("--netns", "/nowhere/ns"), "/nowhere/ns"},
		{attach("--netns", "/etc/passwd"), "not a network namespace"},
		{attach("--netns", "/proc/self/ns/mnt"), "not a network namespace"},
		{attach("--pid", pid), "pid: "},
		{attach("--pid", fmt.Sprint(n.Proc.PID)), "meshd itself"},
		{attach("--netns", n.Host.Path()), "meshd itself"},
		{attach("--netns", bare.Path()), "no address"},
		{attach("--netns", task.Path(), "--network", "nowhere"), "nowhere"},
		{attach("--netns", task.Path(), "--resolv-conf", "/nowhere/resolv.conf"), "/nowhere/resolv.conf"},
		{attach("--netns", task.Path(), "--resolv-conf", "/etc/resolv.conf"), "host's own file"},
		{attach("--netns", task.Path(), "--service", "web", "--ip", "10.96.0.9"), "10.96.0.9"},
		{[]string{"sandbox", "inspect", "nobody"}, "nobody"},
		{[]string{"sandbox", "detach", "nobody"}, "nobody"},
	} {
		checkRefusal(t, n, tt.args, 1, tt.says)
	}
	if after := traces(t, task.Namespace); after != before {
		t.Errorf("refusals left in the namespace:\n%s", after)
	}
	ctl(t, n, attach("--netns", task.Path(), "--name", "first")...)
	checkRefusal(t, n, attach("--netns", task.Path(), "--name", "second"), 1, "already attached")
	checkRefusal(t, n, attach("--netns", bare.Path(), "--name", "first"), 1, "first")
	checkRefusal(t, n, []string{"network", "rm", network}, 1, "sandboxes")
	ctl(t, n, "sandbox", "detach", "first")
	ctl(t, n, "network", "rm", network)
}
