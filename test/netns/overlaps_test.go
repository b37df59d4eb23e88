//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
)

// TestOneAddressInTwoNetworks makes two networks of one pool with one pinned
// address on hosts that do not know each other, joins them, and runs tasks of
// both on both: each name leads to its own tasks, by the VIP in the older
// network and without one in the younger, everybody says so, and what was in the
// younger's way is gone with the older.
func TestOneAddressInTwoNetworks(t *testing.T) {
	t.Parallel()
	f := fleet.NewTest(t, 2)
	vip, names := netip.MustParseAddr("10.85.7.7"), []string{"red", "blue"}
	var nodes []*fleet.Node
	tasks := map[string][]*fleet.Task{}
	for i, h := range f.Rig.Hosts() {
		n := f.AddNode(h, nil)
		must(t, n.Start(t.Context()))
		ctl(t, n, "network", "create", names[i], "--subnet", "10.85.0.0/16")
		tasks[names[i]] = append(tasks[names[i]], runPinned(t, n, names[i], vip))
		nodes = append(nodes, n)
	}
	ctl(t, nodes[0], "join", nodes[1].Host.Addr.String())
	for i, n := range nodes {
		fleet.Within(t, 30*time.Second, func(ctx context.Context) error {
			_, err := n.API.Network(ctx, names[1-i])
			return err
		})
		tasks[names[1-i]] = append(tasks[names[1-i]], runPinned(t, n, names[1-i], vip))
	}
	older, younger := "", ""
	for _, n := range nodes {
		fleet.Within(t, 30*time.Second, func(ctx context.Context) (err error) {
			older, younger, err = overlap(ctx, n)
			return err
		})
		degraded(t, n, "network "+younger+" is not served: pool 10.85.0.0/16: "+
			"pool 10.85.0.0/16 of network "+older+", which is older")
	}
	check := func() {
		t.Helper()
		for _, from := range tasks[older] {
			if at := answersAt(t, from, older+"-svc."+older, "10.85.0.0/16"); at != vip {
				t.Errorf("%s is at %s", older, at)
			}
			fleet.Within(t, 10*time.Second, func(ctx context.Context) error { // the kernel is a moment behind what is decided
				for range 6 {
					if id, err := from.Get(ctx, vip); err != nil || !strings.HasPrefix(id, older) {
						return fmt.Errorf("who asks for %s gets %q, %w", older, id, err)
					}
				}
				return nil
			})
		}
	}
	check()
	for _, from := range tasks[younger] {
		asksTasks(t, from, younger+"-svc."+younger, tasks[younger]...)
	}
	checkRefusal(t, nodes[0], []string{"network", "create", "green", "--subnet", "10.85.3.0/24"}, 1, "overlaps")

	// The younger goes and returns elsewhere; then so does the older.
	for _, name := range []string{younger, older} {
		for _, task := range tasks[name] {
			must(t, task.Unregister())
		}
		fleet.Within(t, 30*time.Second, func(context.Context) error {
			_, err := nodes[0].Ctl("network", "rm", name)
			return err
		})
		for _, n := range nodes {
			fleet.Within(t, 30*time.Second, func(ctx context.Context) error {
				if _, err := n.API.Network(ctx, name); !errors.Is(err, control.ErrNotFound) {
					return fmt.Errorf("%s still has %s: %w", n.Host.Name, name, err)
				}
				return nil
			})
			degraded(t, n, "")
		}
		if name == younger {
			check()
		}
		ctl(t, nodes[1], "network", "create", name, "--subnet", "10.86.0.0/16")
		for i, n := range nodes {
			fleet.Within(t, 30*time.Second, func(ctx context.Context) error {
				_, err := n.API.Network(ctx, name)
				return err
			})
			task := runIn(t, n, name, name+"-svc", 7+i)
			answersAt(t, task, name+"-svc."+name, "10.86.0.0/16")
			tasks[name] = append(tasks[name], task)
		}
		for _, task := range tasks[name][2:] {
			must(t, task.Unregister())
		}
		fleet.Within(t, 30*time.Second, func(context.Context) error {
			_, err := nodes[0].Ctl("network", "rm", name)
			return err
		})
	}
}

// runPinned starts a task of a network's service with a pinned address.
func runPinned(t *testing.T, n *fleet.Node, network string, vip netip.Addr) *fleet.Task {
	t.Helper()
	task, err := n.Run(t.Context(), fleet.Spec{Network: network, Service: network + "-svc", Slot: 1, ID: network + "-" +
		n.Host.Name, VIP: vip})
	must(t, err)
	return task
}

// overlap returns which of two networks a node says is the older.
func overlap(ctx context.Context, n *fleet.Node) (older, younger string, err error) {
	all, err := n.API.Networks(ctx)
	for _, x := range all {
		if _, after, found := strings.Cut(x.Conflict, "of the older network "); found {
			older, _, _ = strings.Cut(after, ":")
			younger = x.Name
		}
	}
	if err == nil && older == "" {
		err = fmt.Errorf("%s sees no overlap: %+v", n.Host.Name, all)
	}
	return older, younger, err
}

// TestCreatedAtTheSameTime creates networks whose pools overlap on two hosts at
// once: one of them is refused and named.
func TestCreatedAtTheSameTime(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	for round := range 6 {
		var got [2]control.Network
		var errs [2]error
		var both sync.WaitGroup
		for i, n := range nodes {
			both.Go(func() {
				got[i], errs[i] = n.API.CreateNetwork(t.Context(), control.CreateNetwork{
					Name:   fmt.Sprintf("n%d-%d", round, i),
					Subnet: fmt.Sprintf("10.%d.%d.0/24", 100+round, i*(round%2)),
				})
			})
		}
		both.Wait()
		if round%2 == 1 { // side by side
			must(t, errors.Join(errs[0], errs[1]))
			continue
		}
		if len(got[0].Silent)+len(got[1].Silent) > 0 {
			t.Skip("the machine is too slow to be asked in a second")
		}
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("round %d: %v, %v", round, errs[0], errs[1])
		}
		if err := errors.Join(errs[0], errs[1]); !errors.Is(err, control.ErrConflict) ||
			!strings.Contains(err.Error(), fmt.Sprintf("n%d-", round)) {
			t.Errorf("round %d: %v", round, err)
		}
	}
}

// TestCreatedAgain repeats the definition of a network after a host has got an
// address in its pool: that is no error, and says so.
func TestCreatedAgain(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	createNetwork(t, nodes)
	again := []string{"network", "create", network, "--subnet", "10.96.0.0/16"}
	for _, n := range nodes {
		ctl(t, n, again...)
	}
	inside(t, nodes[1].Host, "ip address add 10.96.200.1/32 dev eth0")
	for i, n := range nodes {
		says := []string{
			"node host2: pool 10.96.0.0/16: address 10.96.200.1",
			"this host cannot serve pool 10.96.0.0/16: address 10.96.200.1",
		}[i]
		fleet.Within(t, 5*time.Second, func(ctx context.Context) error {
			d, err := n.API.CreateNetwork(ctx, control.CreateNetwork{Name: network, Subnet: "10.96.0.0/16"})
			if err == nil && (len(d.Against) != 1 || !strings.Contains(d.Against[0], says)) {
				err = fmt.Errorf("%s says %q", n.Host.Name, d.Against)
			}
			return err
		})
	}
	checkRefusal(t, nodes[0], []string{"network", "create", network, "--subnet", "10.97.0.0/16"}, 1, "10.96.0.0/16")
}
