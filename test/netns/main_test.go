//go:build linux

package netns

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
	"meshd/test/rig"
)

const network = "collabnet"

func TestMain(m *testing.M) {
	fleet.ServeIfAsked()
	os.Exit(rig.TestMain(fleet.Build, m.Run))
}

// ctl runs meshctl, which must succeed.
func ctl(t *testing.T, n *fleet.Node, args ...string) string {
	t.Helper()
	out, err := n.Ctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// createNetwork creates the network at the first node and waits until the
// others know it.
func createNetwork(t *testing.T, nodes []*fleet.Node) {
	t.Helper()
	ctl(t, nodes[0], "network", "create", network, "--subnet", "10.96.0.0/16")
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		for _, n := range nodes {
			all, err := n.API.Networks(ctx)
			if err != nil || len(all) != 1 {
				return fmt.Errorf("%s knows networks %v, %w", n.Host.Name, all, err)
			}
		}
		return nil
	})
}

// run starts one task of the service on each of the nodes.
func run(t *testing.T, service string, nodes ...*fleet.Node) []*fleet.Task {
	t.Helper()
	var tasks []*fleet.Task
	for i, n := range nodes {
		id := fmt.Sprintf("%s-%s-%08x", service, n.Host.Name, rand.Uint32())
		task, err := n.Run(t.Context(), fleet.Spec{Network: network, Service: service, Slot: i + 1, ID: id})
		if err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, task)
	}
	return tasks
}

// resolves checks that a name resolves to exactly the addresses of the tasks,
// as seen from inside from.
func resolves(ctx context.Context, from *fleet.Task, name string, tasks []*fleet.Task) error {
	a, err := from.Resolve(ctx, name, dns.TypeA)
	if err != nil {
		return err
	}
	var want []string
	for _, task := range tasks {
		want = append(want, task.Addr.String())
	}
	slices.Sort(want)
	if !slices.Equal(a.Data, want) {
		return fmt.Errorf("on %s %s is %s, want %v", from.Node.Host.Name, name, a, want)
	}
	return nil
}

// allResolve makes that check inside every one of the tasks.
func allResolve(ctx context.Context, name string, tasks []*fleet.Task) error {
	for _, from := range tasks {
		if err := resolves(ctx, from, name, tasks); err != nil {
			return err
		}
	}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
