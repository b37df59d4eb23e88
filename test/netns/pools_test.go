//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
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
)

// carries makes a node that has not started yet know a network, as if the network
// had been created on a host where nothing stood against its pool.
func carries(t *testing.T, n *fleet.Node, name, subnet string) {
	t.Helper()
	must(t, os.MkdirAll(n.DataDir, 0o700))
	tasks := fmt.Sprintf(`{"networks":{%q:{"def":{"subnet":%q,"birth":1}}}}`, name, subnet)
	must(t, os.WriteFile(filepath.Join(n.DataDir, "tasks.json"), []byte(tasks), 0o600))
}

// degraded waits until a node's status says something of that text, or, for
// "", until it says nothing of pools.
func degraded(t *testing.T, n *fleet.Node, want string) {
	t.Helper()
	degradedWithin(t, n, 20*time.Second, want)
}

// degradedWithin is degraded for what is not said so soon.
func degradedWithin(t *testing.T, n *fleet.Node, limit time.Duration, want string) {
	t.Helper()
	fleet.Within(t, limit, func(ctx context.Context) error {
		s, err := n.API.Status(ctx)
		text := strings.Join(s.Degraded, "\n")
		if err == nil && (want != "" && !strings.Contains(text, want) || want == "" && strings.Contains(text, "pool")) {
			err = fmt.Errorf("%s is degraded by %q, not by %q", n.Host.Name, text, want)
		}
		return err
	})
}

// asksTasks waits until a name resolves to the tasks themselves.
func asksTasks(t *testing.T, from *fleet.Task, name string, tasks ...*fleet.Task) {
	t.Helper()
	var want []string
	for _, task := range tasks {
		want = append(want, task.Addr.String())
	}
	slices.Sort(want)
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		a, err := from.Resolve(ctx, name, dns.TypeA)
		if err == nil && !slices.Equal(a.Data, want) {
			err = fmt.Errorf("%s is %s, not %v", name, a, want)
		}
		return err
	})
}

// runIn starts a task of a service in a network.
func runIn(t *testing.T, n *fleet.Node, network, service string, slot int) *fleet.Task {
	t.Helper()
	task, err := n.Run(t.Context(), fleet.Spec{
		Network: network, Service: service, Slot: slot,
		ID: fmt.Sprintf("%s-%s-%d", network, service, slot),
	})
	must(t, err)
	return task
}

// answersAt waits until the service's name is a VIP that answers, and returns
// the VIP.
func answersAt(t *testing.T, from *fleet.Task, name, pool string) netip.Addr {
	t.Helper()
	var vip netip.Addr
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error {
		a, err := from.Resolve(ctx, name, dns.TypeA)
		if err != nil || len(a.Data) != 1 {
			return fmt.Errorf("%s is %s, %w", name, a, err)
		}
		if vip, err = netip.ParseAddr(a.Data[0]); err != nil || !netip.MustParsePrefix(pool).Contains(vip) {
			return fmt.Errorf("%s is %s, not in %s: %w", name, vip, pool, err)
		}
		_, err = from.Get(ctx, vip)
		return err
	})
	return vip
}

// TestPoolOverTheHosts makes every host take part in a network whose pool holds
// the subnet that they live in. They stay reachable, name the route and the device
// that stand against it, and answer with tasks.
func TestPoolOverTheHosts(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 3)
	all := f.Rig.Hosts()
	var nodes []*fleet.Node
	for i, h := range all {
		nodes = append(nodes, f.AddNode(h, nil, all[:i]...))
	}
	carries(t, nodes[0], "oops", "172.20.0.0/16")
	for _, n := range nodes {
		must(t, n.Start(t.Context()))
	}
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return nodes[2].Members(ctx, 3) })
	for _, n := range nodes {
		fleet.Within(t, 5*time.Second, func(ctx context.Context) error {
			_, err := n.API.Network(ctx, "oops")
			return err
		})
	}
	var tasks []*fleet.Task
	for i, n := range nodes {
		tasks = append(tasks, runIn(t, n, "oops", "web", i+1))
	}
	for i, n := range nodes {
		degraded(t, n, "network oops is not served: pool 172.20.0.0/16: route 172.20.0.0/24 of device eth0")
		asksTasks(t, tasks[i], "web", tasks...)
		if route := inside(t, n.Host, "ip route get "+all[(i+1)%3].Addr.String()); !strings.Contains(route, "dev eth0") {
			t.Errorf("the way to a peer is %s", route)
		}
		if out := ctl(t, n, "network", "inspect", "oops"); !strings.Contains(out, "route 172.20.0.0/24 of device eth0") {
			t.Errorf("network inspect says %s", out)
		}
		if out := ctl(t, n, "resolve", "web", "--network", "oops"); !strings.Contains(out,
			"route 172.20.0.0/24 of device eth0") {
			t.Errorf("resolve says %s", out)
		}
		if out := ctl(t, n, "metrics"); !strings.Contains(out, `meshd_lb_refused_networks{sandbox=""} 1`) {
			t.Error("the metrics do not tell of it")
		}
	}
	fleet.Always(t, 3*time.Second, func(ctx context.Context) error {
		for i, n := range nodes {
			if s, err := n.API.Status(ctx); err != nil || s.Members.Alive != 3 {
				return fmt.Errorf("%s sees %+v, %w", n.Host.Name, s.Members, err)
			}
			if _, err := tasks[i].Get(ctx, tasks[(i+1)%3].Addr); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestAddressAppearsInPool gives a host an address and a bridge inside a pool
// that is served: the pool is withdrawn at once, and comes back by itself.
func TestAddressAppearsInPool(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	answersAt(t, tasks[0], "web", "10.96.0.0/16")
	a := nodes[0]
	for _, c := range []struct{ make, undo, says string }{
		{"ip link add docker0 type bridge; ip address add 10.96.7.1/24 dev docker0; ip link set docker0 up", "ip link delete docker0", "route 10.96.7.0/24 of device docker0"},
		{"ip address add 10.96.200.1/32 dev eth0", "ip address delete 10.96.200.1/32 dev eth0", "address 10.96.200.1 of device eth0"},
		{"ip route add 10.96.9.0/24 via " + nodes[1].Host.Addr.String(), "ip route delete 10.96.9.0/24", "route 10.96.9.0/24 of device eth0"},
		{
			"ip route add default via " + nodes[1].Host.Addr.String() +
				" table 200; ip rule add pref 50 to 10.96.0.0/12 lookup 200", "ip rule delete pref 50",
			"route 10.96.0.0/12 of device eth0, to which routing rule 50 leads before the pool's own",
		},
		{"ip rule add pref 108 to 10.96.4.0/24 blackhole", "ip rule delete pref 108 to 10.96.4.0/24 blackhole", "route 10.96.4.0/24, to which routing rule 108 leads"},
		{"ip route add 10.96.3.0/24 via " + nodes[1].Host.Addr.String() + " table 109", "ip route delete 10.96.3.0/24 table 109", "route 10.96.3.0/24 of device eth0"},
		{"ip route add 10.96.0.0/16 via " + nodes[1].Host.Addr.String(), "ip route delete 10.96.0.0/16 proto boot", "route 10.96.0.0/16 of device eth0"},
	} {
		for command := range strings.SplitSeq(c.make, "; ") {
			inside(t, a.Host, command)
		}
		degraded(t, a, c.says)
		asksTasks(t, tasks[0], "web", tasks...)
		fleet.Within(t, 5*time.Second, func(context.Context) error { // status tells of it just before the kernel is changed
			if table := inside(t, a.Host, "nft list set ip meshd pool"); strings.Contains(table, "10.96.0.0") {
				return fmt.Errorf("after %q the kernel still has %s", c.make, table)
			}
			return nil
		})
		answersAt(t, tasks[1], "web", "10.96.0.0/16") // nothing has happened to the other host
		inside(t, a.Host, c.undo)
		degraded(t, a, "")
		answersAt(t, tasks[0], "web", "10.96.0.0/16")
	}
	inside(t, a.Host, "ip route add 10.0.0.0/8 via "+nodes[1].Host.Addr.String())
	inside(t, a.Host, "ip route add default via "+nodes[1].Host.Addr.String())
	for _, harmless := range []string{
		"pref 20 fwmark 0x1 lookup 200", "pref 21 lookup main suppress_prefixlength 8",
		"pref 22 lookup 201", "pref 200 lookup 200", "pref 23 to 10.97.0.0/16 lookup 200",
	} {
		inside(t, a.Host, "ip rule add "+harmless)
	}
	answersAt(t, tasks[0], "web", "10.96.0.0/16")
	table, err := a.API.LB(t.Context(), control.LBRequest{Network: network})
	if err != nil || !table.InSync {
		t.Errorf("beside a corporate route: %+v, %v", table, err)
	}
}

// TestNetworkCreateAsksTheHosts refuses pools that touch this host or another. The
// message names the route, the device and the host; nothing is left of the network.
func TestNetworkCreateAsksTheHosts(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 3)
	for _, command := range []string{
		"ip link add docker0 type bridge", "ip address add 172.17.0.1/16 dev docker0",
		"ip link set docker0 up",
	} {
		inside(t, nodes[1].Host, command)
	}
	fleet.Within(t, 5*time.Second, func(context.Context) error {
		_, err := nodes[0].Ctl("network", "create", "dk", "--subnet", "172.17.0.0/16")
		if err == nil { // host2 has not yet heard of its bridge
			_, err = nodes[0].Ctl("network", "rm", "dk")
			return errors.Join(errors.New("taken"), err)
		}
		if !strings.Contains(err.Error(), "node host2: pool 172.17.0.0/16: route 172.17.0.0/16 of device docker0") {
			return fmt.Errorf("over another host's bridge: %w", err)
		}
		return nil
	})
	for _, c := range []struct{ subnet, says string }{
		{"172.20.0.0/16", "this host cannot serve pool 172.20.0.0/16: route 172.20.0.0/24 of device eth0"},
		{"172.20.0.128/25", "route 172.20.0.0/24 of device eth0"},
		{"10.1.1.0/24", "route 10.1.1.0/24 of device tasks"},
		{"10.0.0.0/8", "route 10.1.1.0/24 of device tasks"},
		{"44.0.0.0/16", "not within the pools that this host allows"},
	} {
		checkRefusal(t, nodes[0], []string{"network", "create", "oops", "--subnet", c.subnet}, 1, c.says)
	}
	fleet.Within(t, 5*time.Second, func(ctx context.Context) error {
		all, err := nodes[2].API.Networks(ctx)
		if err == nil && len(all) != 0 {
			err = fmt.Errorf("networks that are left: %v", all)
		}
		return err
	})
	must(t, nodes[2].Proc.Pause())
	n, err := nodes[0].API.CreateNetwork(t.Context(), control.CreateNetwork{Name: "fine", Subnet: "10.96.0.0/16"})
	if err != nil || !slices.Equal(n.Silent, []string{"host3"}) {
		t.Errorf("beside a silent host: %+v, %v", n, err)
	}
	must(t, nodes[2].Proc.Resume())
}

// TestPoolsSetting starts a node that takes pools of one range only.
func TestPoolsSetting(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 2)
	all := f.Rig.Hosts()
	bounded, open := f.AddNode(all[0], []string{"--pools", "10.99.0.0/16"}), f.AddNode(all[1], nil, all[0])
	carries(t, open, "wide", "10.96.0.0/16")
	must(t, bounded.Start(t.Context()))
	must(t, open.Start(t.Context()))
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		_, err := bounded.API.Network(ctx, "wide")
		return err
	})
	task := runIn(t, bounded, "wide", "web", 1)
	degraded(t, bounded, "pool 10.96.0.0/16: it is not within the pools that this host allows")
	asksTasks(t, task, "web", task)
	answersAt(t, runIn(t, open, "wide", "api", 1), "web", "10.96.0.0/16")
	checkRefusal(t, open, []string{"network", "create", "more", "--subnet", "10.98.0.0/16"}, 1,
		"node host1: pool 10.98.0.0/16: it is not within the pools that this host allows")
	ctl(t, open, "network", "create", "good", "--subnet", "10.99.8.0/24")
}

// TestPoolIsNoThief puts a pool over what the host needs by hand, as no version
// of meshd does: the way to a pool takes nothing from connected and more
// specific routes, also where packets are checked strictly, and gives way after
// a kill.
func TestPoolIsNoThief(t *testing.T) {
	t.Parallel()
	f, nodes := fleet.Up(t, 2)
	a, b := nodes[0], nodes[1]
	for _, n := range nodes {
		for _, key := range []string{"all", "default", "eth0", "tasks"} {
			must(t, n.Host.Sysctl("net.ipv4.conf."+key+".rp_filter", "1"))
		}
		inside(t, n.Host, "ip route add 10.0.0.0/8 via "+nodes[0].Host.Addr.Next().Next().Next().String())
	}
	before := inside(t, a.Host, "ip rule") + inside(t, a.Host, "ip -6 rule")
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	for _, from := range tasks {
		vip := answersAt(t, from, "web", "10.96.0.0/16")
		for range 4 {
			if _, err := fleet.Get(t.Context(), from.Node.Host.Namespace, vip); err != nil {
				t.Error(err)
			}
		}
		if out, err := from.Node.Host.Output("ping", "-c", "1", "-W", "2", vip.String()); err != nil {
			t.Errorf("a VIP does not answer the host's ping: %s %v", out, err)
		}
		if out, err := from.Output("ping", "-c", "1", "-W", "2", vip.String()); err != nil {
			t.Errorf("a VIP does not answer a container's ping: %s %v", out, err)
		}
	}
	for _, command := range []string{
		"ip rule add pref 108 to 172.20.0.0/16 lookup main suppress_prefixlength 15",
		"ip rule add pref 109 to 172.20.0.0/16 lookup 109",
		"ip route add local 172.20.0.0/16 dev lo table 109", "nft add element ip meshd pool { 172.20.0.0/16 }",
	} {
		inside(t, a.Host, command)
	}
	if _, err := fleet.Get(t.Context(), a.Host.Namespace, tasks[1].Addr); err != nil {
		t.Errorf("with a pool over the hosts: %v", err)
	}
	if _, err := tasks[0].Get(t.Context(), tasks[1].Addr); err != nil {
		t.Errorf("with a pool over the hosts: %v", err)
	}
	inside(t, a.Host, "ping -c 1 -W 2 "+b.Host.Addr.String())
	if out, err := tasks[0].Output("ping", "-c", "1", "-W", "2", b.Host.Addr.String()); err != nil {
		t.Errorf("a container's ping of a peer: %s %v", out, err)
	}
	for _, command := range []string{
		"ip rule del to 172.20.0.0/16 lookup main", "ip rule del to 172.20.0.0/16 lookup 109",
		"ip route del local 172.20.0.0/16 dev lo table 109",
	} {
		inside(t, a.Host, command)
	}
	a.Proc.Kill()
	if out, err := a.Host.Output(f.Meshd, "cleanup", "--data-dir", a.DataDir, "--socket", a.Socket); err != nil {
		t.Errorf("cleanup: %s %v", out, err)
	}
	if after := inside(t, a.Host, "ip rule") + inside(t, a.Host, "ip -6 rule"); after != before {
		t.Errorf("routing rules before:\n%safter:\n%s", before, after)
	}
	if left := inside(t, a.Host, "ip route show table all proto 109") +
		inside(t, a.Host, "nft list tables"); strings.Contains(left, "109") || strings.Contains(left, "meshd") {
		t.Errorf("left is %s", left)
	}
}

// TestRouteInSandboxAgainstPool gives a container a route of its own inside the
// pool: the sandbox says so wherever people look, and is well when it has gone.
func TestRouteInSandboxAgainstPool(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 1)
	n := nodes[0]
	createNetwork(t, nodes)
	web := sandboxed(t, network, "web", n)[0]
	const says = "network " + network + " is not served: pool 10.96.0.0/16: route 10.96.7.0/24 of device own"
	for command := range strings.SplitSeq("ip link add own type bridge; ip link set own up; ip route add 10.96.7.0/24 "+
		"dev own", "; ") {
		withinBox(t, web, command)
	}
	degraded(t, n, "sandbox "+web.Box+": "+says)
	boxes, err := n.API.Sandboxes(t.Context())
	if err != nil || len(boxes) != 1 || boxes[0].State != control.SandboxDegraded ||
		!strings.Contains(strings.Join(boxes[0].Problems, "\n"), says) {
		t.Errorf("the sandbox is %+v, %v", boxes, err)
	}
	ctl(t, n, "sandbox", "detach", web.Box)
	again, err := n.API.AttachSandbox(t.Context(), control.AttachSandbox{
		Netns: web.Path(), Networks: []string{network},
		Name: "again",
	})
	if err != nil || !strings.Contains(strings.Join(again.Warnings, "\n"), says) {
		t.Errorf("attached to what it cannot serve: %+v, %v", again, err)
	}
	withinBox(t, web, "ip link delete own")
	degraded(t, n, "")
	boxes, err = n.API.Sandboxes(t.Context())
	if err != nil || len(boxes) != 1 || boxes[0].State != control.SandboxReady {
		t.Errorf("with nothing against the pool the sandbox is %+v, %v", boxes, err)
	}
}

// withinBox runs a command in a container, as its own root would.
func withinBox(t *testing.T, box *fleet.Task, command string) {
	t.Helper()
	args := strings.Fields(command)
	if out, err := box.Output(args[0], args[1:]...); err != nil {
		t.Fatalf("%s in %s: %v %s", command, box.ID, err, out)
	}
}
