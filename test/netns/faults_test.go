//go:build linux

package netns

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// TestKillNine kills a daemon with SIGKILL, again and again, at moments when it
// writes, and starts it again: it forgets nothing, and its host's tasks are
// never blanked on the other host, because it is back within a second.
func TestKillNine(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	victim := nodes[1]
	for round := range 6 {
		extra, err := victim.Run(t.Context(), fleet.Spec{
			Network: network, Service: "extra", Slot: round + 1, ID: fmt.Sprintf("extra-%d", round),
		})
		must(t, err)
		go func() { _, _ = victim.Ctl("task", "rm", extra.ID) }() // is it done or not? both are fine
		victim.Proc.Kill()
		must(t, victim.Start(t.Context()))
		fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	}
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return nodes[0].Equal(ctx, 2) })
}

// TestRegistrationsSurviveARestart stops a daemon in good order and starts it.
func TestRegistrationsSurviveARestart(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	vip, err := tasks[0].Resolve(t.Context(), "web", dns.TypeA)
	must(t, err)
	if err := nodes[1].Proc.Stop(10 * time.Second); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
	must(t, nodes[1].Start(t.Context()))
	fleet.Within(t, 15*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	fleet.Within(t, 5*time.Second, func(ctx context.Context) error { // it waits for the load balancer (L2)
		again, err := tasks[1].Resolve(ctx, "web", dns.TypeA)
		if err == nil && again.String() != vip.String() {
			err = fmt.Errorf("the VIP was %s and is %s after a restart", vip, again)
		}
		return err
	})
}

// TestTablesOutliveTheDaemon stops a daemon: what it gave the kernel goes on
// to serve its host's tasks, and is adopted at the next start (L1).
func TestTablesOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	var vip netip.Addr
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		a, err := tasks[1].Resolve(ctx, "web", dns.TypeA)
		if err == nil {
			vip, err = netip.ParseAddr(a.String())
		}
		if err == nil {
			_, err = tasks[1].Get(ctx, vip)
		}
		return err
	})
	serves := func() {
		t.Helper()
		_, err := fleet.Spread(8, func() (string, error) { return tasks[1].Get(t.Context(), vip) })
		must(t, err)
	}
	must(t, nodes[1].Proc.Stop(10*time.Second))
	serves()
	must(t, nodes[1].Start(t.Context()))
	for range 20 {
		serves()
	}
}

// TestFrozenDaemon stops a daemon with SIGSTOP until the others give it up,
// and lets it go on.
func TestFrozenDaemon(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 3)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	must(t, nodes[2].Proc.Pause())
	fleet.Within(t, 30*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks[:2]) })
	must(t, nodes[2].Proc.Resume())
	fleet.Within(t, 30*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
}

// TestLongPartition cuts a host off for longer than memberlist remembers the
// dead; the daemons find each other again all the same (G2).
func TestLongPartition(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	f, nodes := fleet.Up(t, 3)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	must(t, f.Rig.Partition(nodes[2].Host))
	fleet.Within(t, 30*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks[:2]) })
	fleet.Within(t, 30*time.Second,
		func(ctx context.Context) error { return resolves(ctx, tasks[2], "tasks.web", tasks[2:]) })
	fleet.Always(t, 40*time.Second,
		func(ctx context.Context) error { return resolves(ctx, tasks[2], "tasks.web", tasks[2:]) })
	tasks = append(tasks, run(t, "web", nodes...)...)
	must(t, f.Rig.HealAll())
	fleet.Within(t, 30*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return nodes[2].Equal(ctx, 3) })
}

// TestLossyLinks loses a quarter of all packets between four hosts.
func TestLossyLinks(t *testing.T) {
	t.Parallel()
	f, nodes := fleet.Up(t, 4)
	createNetwork(t, nodes)
	for _, a := range f.Rig.Hosts() {
		for _, b := range f.Rig.Hosts() {
			if a != b {
				must(t, f.Rig.SetFaults(a, b, rig.Fault{Loss: 25}))
			}
		}
	}
	tasks := run(t, "web", nodes...)
	fleet.Within(t, 30*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	must(t, f.Rig.HealAll())
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return nodes[3].Equal(ctx, 4) })
}

// TestOneWayCut loses what one host sends to another; a third still hears both.
func TestOneWayCut(t *testing.T) {
	t.Parallel()
	f, nodes := fleet.Up(t, 3)
	createNetwork(t, nodes)
	h := f.Rig.Hosts()
	must(t, f.Rig.SetFaults(h[0], h[1], rig.Fault{Proto: rig.UDP, Loss: 100}))
	tasks := run(t, "web", nodes...)
	fleet.Within(t, 30*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
}

// TestStrangerWithAnotherKey joins with a key of its own: no node lets it in.
func TestStrangerWithAnotherKey(t *testing.T) {
	t.Parallel()
	f, nodes := fleet.Up(t, 2)
	other, err := fleet.New(f.Rig, rig.Dir(), t.TempDir())
	must(t, err)
	h, err := f.Rig.AddHost("stranger")
	must(t, err)
	stranger := other.AddNode(h, nil, f.Rig.Hosts()[:2]...)
	must(t, stranger.Start(t.Context()))
	fleet.Always(t, 5*time.Second, func(ctx context.Context) error {
		for n, alive := range map[*fleet.Node]int{nodes[0]: 2, nodes[1]: 2, stranger: 1} {
			s, err := n.API.Status(ctx)
			if err != nil || s.Members.Alive != alive {
				return fmt.Errorf("%s sees %d members alive, want %d (%w)", n.Host.Name, s.Members.Alive, alive, err)
			}
		}
		return nil
	})
	degradedWithin(t, stranger, 30*time.Second, "same --key-file")
}

// TestTwoNodesOneName starts a second host1: the mesh reports it, and what the
// first host1 serves does not flap.
func TestTwoNodesOneName(t *testing.T) {
	t.Parallel()
	f, nodes := fleet.Up(t, 2)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	h, err := f.Rig.AddHost("twin")
	must(t, err)
	twin := f.AddNode(h, []string{"--node", "host1"}, f.Rig.Hosts()[:2]...)
	p, err := twin.Host.Start("meshd", f.Meshd, twin.Args()...)
	must(t, err)
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return reported(ctx, p, nodes[0], nodes[1], twin) })
	fleet.Always(t, 8*time.Second, func(ctx context.Context) error { return resolves(ctx, tasks[1], "tasks.web", tasks) })
}

// reported checks that a node tells of a conflict, or that the twin gave up.
func reported(ctx context.Context, twin *rig.Proc, nodes ...*fleet.Node) error {
	select {
	case <-twin.Done():
		return nil
	default:
	}
	for _, n := range nodes {
		if s, err := n.API.Status(ctx); err == nil && len(s.Conflicts) > 0 {
			return nil
		}
	}
	return fmt.Errorf("no node reports that two are named host1")
}

// TestPowerless runs a daemon without the right to touch the network: it
// serves DNS, a vip service is answered with its tasks, and it says why (R5).
func TestPowerless(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 1)
	n := f.AddNode(f.Rig.Hosts()[0], nil)
	must(t, n.Host.Sysctl("net.ipv4.ip_unprivileged_port_start", "0"))
	p, err := n.Host.StartPowerless("meshd", f.Meshd, n.Args()...)
	must(t, err)
	n.Proc = p
	fleet.Within(t, 15*time.Second, func(ctx context.Context) error { return n.Members(ctx, 1) })
	ctl(t, n, "network", "create", network, "--subnet", "10.96.0.0/16")
	tasks := run(t, "web", n)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return resolves(ctx, tasks[0], "web", tasks) })
	s, err := n.API.Status(t.Context())
	must(t, err)
	if s.LBDriver != "none" || len(s.Degraded) == 0 {
		t.Errorf("status: driver %q because %q, degraded %q; want none, and the reason", s.LBDriver, s.LBWhy, s.Degraded)
	}
}

// TestGuard tries what must not be reachable on a VIP: a port that is no
// service, and the host's own listeners.
func TestGuard(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	a, err := tasks[0].Resolve(t.Context(), "web", dns.TypeA)
	must(t, err)
	vip := netip.MustParseAddr(a.String())
	fleet.Within(t, 5*time.Second, func(ctx context.Context) error { _, err := tasks[0].Get(ctx, vip); return err })
	l, err := nodes[0].Host.Listen(t.Context(), "tcp", "0.0.0.0:22")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	for _, at := range []netip.AddrPort{
		netip.AddrPortFrom(vip, 22),
		netip.AddrPortFrom(netip.MustParseAddr("10.96.77.77"), 22),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		c, err := tasks[0].Dial(ctx, "tcp", at.String())
		if err == nil {
			t.Errorf("%s, which is no service, was answered by the host", at)
			_ = c.Close()
		}
		cancel()
	}
}
