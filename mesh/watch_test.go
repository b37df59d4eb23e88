package mesh

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/mesh/config"
	"meshd/mesh/control"
	"meshd/state"
)

// startNode runs a node until the end of the test.
func startNode(t *testing.T) (*Node, context.Context) {
	t.Helper()
	n, err := New(config.Config{
		Node: "a", Bind: "127.0.0.1:0", LB: "none", Profile: "local", DataDir: t.TempDir(),
		Socket: filepath.Join(t.TempDir(), "s"),
	}, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return n, ctx
}

// A network that is left and joined again in one step has another view, and is
// followed there.
func TestWatchFollowsViews(t *testing.T) {
	n, ctx := startNode(t)
	events := make(chan control.Event, 64)
	go func() {
		_ = n.Watch(ctx, control.WatchRequest{}, func(e control.Event) error { events <- e; return nil })
	}()
	<-events
	if _, err := n.CreateNetwork(ctx, control.CreateNetwork{Name: "net", Subnet: "10.96.0.0/16"}); err != nil {
		t.Fatal(err)
	}
	until := func(want control.EventType) {
		t.Helper()
		for end := time.After(20 * time.Second); ; {
			select {
			case e := <-events:
				if e.Type == want {
					return
				}
			case <-end:
				t.Fatalf("no %s", want)
			}
		}
	}
	until(control.EventNetworkAdded)
	e := state.Endpoint{ID: "t1", Service: "web", IP4: netip.MustParseAddr("10.1.0.7"), Weight: 1}
	err := n.host.Do(ctx, func(c *gossip.Core, now time.Duration) {
		n.check(c.LeaveNetwork(now, "net"))
		n.check(c.JoinNetwork(now, "net"))
		n.check(c.Commit(now, "net", []state.Change{{
			Kind: state.KindEndpoint, Key: "t1", Group: "web",
			Body: string(state.AppendEndpoint(nil, &e)),
		}}))
	})
	if err != nil {
		t.Fatal(err)
	}
	until(control.EventEndpointAdded)
}

// An owner is dead as soon as the core says so, and lives as soon as it is back.
func TestOwners(t *testing.T) {
	n, ctx := startNode(t)
	if _, err := n.CreateNetwork(ctx, control.CreateNetwork{Name: "net", Subnet: "10.96.0.0/16"}); err != nil {
		t.Fatal(err)
	}
	o := owners{n.host}
	for _, x := range []struct { // of a node that has a stream in the network: this one
		is   state.Liveness
		dead bool
	}{{state.Dead, true}, {state.Alive, false}} {
		err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { c.Store().SetLiveness("a", x.is) })
		if err != nil {
			t.Fatal(err)
		}
		in, err := o.DeadIn(ctx, "net")
		if err != nil || in["a"] != x.dead || o.Dead([]state.NodeID{"a"})["a"] != x.dead {
			t.Errorf("%v: in the network %v, %v", x.is, in, err)
		}
	}
}
