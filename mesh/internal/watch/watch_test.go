package watch

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// fakeOwners are nodes of which some are dead.
type fakeOwners struct {
	mu   sync.Mutex // guards the fields below
	dead map[state.NodeID]bool
	down error
}

func (o *fakeOwners) Dead(nodes []state.NodeID) map[state.NodeID]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[state.NodeID]bool{}
	for _, n := range nodes {
		out[n] = o.dead[n]
	}
	return out
}

func (o *fakeOwners) DeadIn(context.Context, string) (map[state.NodeID]bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dead, o.down
}

// TestTasksOfOneThatIsBackAreForgotten: what an owner had when it vanished and did
// not bring back is not waited for.
func TestTasksOfOneThatIsBackAreForgotten(t *testing.T) {
	o := &fakeOwners{dead: map[state.NodeID]bool{"a": true}}
	w := New(Config{Owners: o})
	h := hiddenTasks{"t1": "a"}
	if w.prune(t.Context(), "net", h); len(h) != 1 {
		t.Errorf("while the owner is dead, left %v", h)
	}
	o.dead["a"], o.down = false, errors.New("stopped")
	if w.prune(t.Context(), "net", h); len(h) != 1 {
		t.Errorf("while nothing is known, left %v", h)
	}
	o.down = nil
	if w.prune(t.Context(), "net", h); len(h) != 0 {
		t.Errorf("with the owner back, left %v", h)
	}
}

// A service comes with its tasks, moves, and goes.
func TestServiceChanges(t *testing.T) {
	nobody := func([]state.NodeID) map[state.NodeID]bool { return nil }
	first, second := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("10.96.0.2")
	was := &state.Service{Network: "net", Name: "web", VIP4: first}
	is := &state.Service{Network: "net", Name: "web", VIP4: second, Conflict: "the pool is used up"}
	for _, c := range []struct {
		old, cur *state.Service
		want     string
	}{
		{nil, nil, ""},
		{nil, was, "service-added vip-assigned"},
		{was, was, ""},
		{was, is, "vip-moved service-conflict"},
		{is, nil, "vip-released service-removed"},
	} {
		var got []string
		for _, e := range changes(c.old, c.cur, hiddenTasks{}, nobody) {
			got = append(got, string(e.Type))
			if e.Network != "net" || e.Service != "web" {
				t.Errorf("an event of %q in %q", e.Service, e.Network)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// events collects what a Watcher emits.
type events struct {
	mu  sync.Mutex // guards all
	all []control.Event
}

func (e *events) emit(es ...control.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, es...)
}

// types returns the types of all events so far, sorted.
func (e *events) types() []control.EventType {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []control.EventType
	for _, x := range e.all {
		out = append(out, x.Type)
	}
	slices.Sort(out)
	return out
}

// ticks is a Lamport clock.
type ticks struct{ n uint64 }

func (c *ticks) Tick() uint64     { c.n++; return c.n }
func (c *ticks) Time() uint64     { return c.n }
func (c *ticks) Witness(n uint64) { c.n = max(c.n, n) }

// A network that the node joins and leaves is followed meanwhile, with its tasks.
func TestRunFollowsNetworks(t *testing.T) {
	store := state.NewStore("a", 1, state.DefaultLimits(), &ticks{})
	var e events
	left := make(chan string, 1)
	w := New(Config{
		Source: store, Owners: &fakeOwners{dead: map[state.NodeID]bool{}}, Emit: e.emit,
		Left: func(network string) { left <- network },
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	wait := func(types ...control.EventType) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		deadline := time.After(20 * time.Second)
		for !slices.Equal(e.types(), types) {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("events %v, want %v", e.types(), types)
			}
		}
	}
	store.Join("net")
	wait(control.EventNetworkAdded)
	store.Leave("net")
	wait(control.EventNetworkAdded, control.EventNetworkRemoved)
	if got := <-left; got != "net" {
		t.Errorf("left %q", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
