package mesh

import (
	"context"
	"fmt"
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

// Hidden tasks are remembered for as long as their owner is.
func TestHiddenTasksAreForgotten(t *testing.T) {
	h := hiddenTasks{}
	for i := range 10 {
		h[fmt.Sprint("t", i)] = state.NodeID(fmt.Sprint("n", i%2))
	}
	h.prune(func(o state.NodeID) bool { return o == "n0" })
	if len(h) != 5 || h["t0"] != "n0" {
		t.Errorf("left: %v", h)
	}
}

// TestHiddenTasksAreBounded: N5. An owner that comes and goes with other tasks each
// time fills no memory: neither while it is away nor when it is back.
func TestHiddenTasksAreBounded(t *testing.T) {
	h := hiddenTasks{}
	for i := range 2 * maxHidden {
		h.hide(fmt.Sprint("t", i), "n0")
	}
	if len(h) > maxHidden {
		t.Errorf("%d hidden tasks are kept", len(h))
	}
	h.hide("t0", "n1") // known already: always room
	if h["t0"] != "n1" {
		t.Errorf("t0 is %q's", h["t0"])
	}
}

// TestTasksOfOneThatIsBackAreForgotten: what an owner had when it vanished and did
// not bring back is not waited for.
func TestTasksOfOneThatIsBackAreForgotten(t *testing.T) {
	n, ctx := startNode(t)
	if _, err := n.CreateNetwork(ctx, control.CreateNetwork{Name: "net", Subnet: "10.96.0.0/16"}); err != nil {
		t.Fatal(err)
	}
	h := hiddenTasks{}
	for _, x := range []struct { // of a node that has a stream in the network: this one
		is   state.Liveness
		left int
	}{{state.Dead, 1}, {state.Alive, 0}} {
		h.hide("t1", "a")
		err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { c.Store().SetLiveness("a", x.is) })
		if err != nil {
			t.Fatal(err)
		}
		if n.pruneHidden(ctx, "net", h); len(h) != x.left {
			t.Errorf("%v: left %v", x.is, h)
		}
	}
}
