//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
	"meshd/test/fleet"
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

// vips returns the VIPs of a service, IPv4 first, when it has as many: of each family
// of its tasks.
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
		ctl(t, nodes[0], "network", "create", name, "--subnet", fmt.Sprintf("10.%d.0.0/16", 96+i), "--subnet6",
			fmt.Sprintf("fd96:%d::/64", i))
	}
	defined(t, 3, nodes...)
	front := sandboxed(t, "front", "api", nodes...)
	back := sandboxed(t, "back", "api", nodes[1])
	sandboxed(t, "back", "db", nodes[0])
	sandboxed(t, "secret", "vault", nodes[1])
	for _, task := range front { // over IPv6 as well
		_, err := task.Start("server6", "/proc/self/exe", fleet.ServeArg, task.ID,
			netip.AddrPortFrom(task.Addr6, fleet.TaskPort).String())
		must(t, err)
		ctl(t, nodes[task.Host.Index-1], "task", "add", "--network", "front", "--service", "six", "--id",
			"six-"+task.Host.Name, "--ip", task.Addr6.String(), "--port", "80")
	}
	client := container(t, nodes[0], "client")
	out := ctl(t, nodes[0], "sandbox", "attach", "--pid", fmt.Sprint(client.Server.PID), "--network", "back,front",
		"--name", "client",
		"--service", "clients", "--port", "80")
	if strings.TrimSpace(out) != "client" {
		t.Errorf("attach printed %q", out)
	}
	ofBack, ofFront := vips(t, nodes[0], "back", "api", 1), vips(t, nodes[0], "front", "api", 1) // IPv4 tasks only
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		return errors.Join(
			answers(ctx, client, "api", dns.TypeA, ofBack[0].String()), // the first network wins
			answers(ctx, client, "tasks.api", dns.TypeA, back[0].Addr.String()),
			answers(ctx, client, "api.front", dns.TypeA, ofFront[0].String()),
			answers(ctx, client, "api.front", dns.TypeAAAA, "NODATA"),
			answers(ctx, client, "api.front.mesh.internal", dns.TypeA, ofFront[0].String()),
			answers(ctx, client, "vault", dns.TypeA, "NXDOMAIN"),
			answers(ctx, client, "vault.secret.mesh.internal", dns.TypeA, "NXDOMAIN"),
			answers(ctx, front[0], "db", dns.TypeA, "NXDOMAIN"),
			answers(ctx, front[1], "clients.front", dns.TypeA, vips(t, nodes[0], "front", "clients", 2)[0].String()),
		)
	})
	six := vips(t, nodes[0], "front", "six", 1)[0]
	fleet.Within(t, 10*time.Second,
		func(ctx context.Context) error { return usesBoth(ctx, client, client.Get, ofFront[0], front) })
	fleet.Within(t, 10*time.Second,
		func(ctx context.Context) error { return usesBoth(ctx, client, client.Echo, ofFront[0], front) })
	fleet.Within(t, 10*time.Second,
		func(ctx context.Context) error { return usesBoth(ctx, client, client.Get, six, front) })
	// itself included
	fleet.Within(t, 10*time.Second,
		func(ctx context.Context) error { return usesBoth(ctx, front[0], front[0].Get, ofFront[0], front) })
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

// usesBoth asks a VIP until every task has answered, and no other has.
func usesBoth(ctx context.Context, from *fleet.Task, ask func(context.Context, netip.Addr) (string, error),
	vip netip.Addr, tasks []*fleet.Task,
) error {
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
		m, _, err := (&dns.Client{Timeout: 2 * time.Second}).ExchangeWithConnContext(t.Context(),
			new(dns.Msg).SetQuestion("web.", dns.TypeA), &dns.Conn{Conn: c})
		must(t, err)
		return dns.RcodeToString[m.Rcode]
	}
	if got := asked("127.0.0.11:53"); got != "NOTAUTH" {
		t.Fatalf("before: 127.0.0.11 answers %s, want the container's own server", got)
	}
	ctl(t, nodes[0], "sandbox", "attach", "--netns", task.Path(), "--network", network, "--name", "named", "--service",
		"web")
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

// TestSandboxRefusals asks for what is impossible, and wants the reason.
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

// TestSandboxWithoutPrivileges restarts a daemon that may not enter containers
// any more: it says so, and forgets neither sandbox nor task. With privileges
// again, all is as before.
func TestSandboxWithoutPrivileges(t *testing.T) {
	t.Parallel()
	f, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	task := sandboxed(t, network, "web", n)[0]
	must(t, n.Proc.Stop(10*time.Second))
	must(t, n.Host.Sysctl("net.ipv4.ip_unprivileged_port_start", "0"))
	p, err := n.Host.StartPowerless("meshd", f.Meshd, n.Args()...)
	must(t, err)
	n.Proc = p
	fleet.Within(t, 15*time.Second, func(ctx context.Context) error { return n.Members(ctx, 1) })
	s, err := n.API.Status(t.Context())
	must(t, err)
	if !strings.Contains(strings.Join(s.Degraded, "\n"), task.Box) {
		t.Errorf("degraded: %q, want word of %s", s.Degraded, task.Box)
	}
	if tasks := ctl(t, n, "task", "ls"); !strings.Contains(tasks, task.ID) {
		t.Errorf("the task is gone: %s", tasks)
	}
	other := container(t, n, "other")
	checkRefusal(t, n, []string{"sandbox", "attach", "--netns", other.Path(), "--network", network}, 1, "netns")
	must(t, p.Stop(10*time.Second))
	must(t, n.Start(t.Context()))
	vip := vips(t, n, network, "web", 1)[0]
	fleet.Within(t, 15*time.Second,
		func(ctx context.Context) error { return answers(ctx, task, "web", dns.TypeA, vip.String()) })
}
