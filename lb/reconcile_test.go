package lb

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/state"
)

// oneService is a store with one network, in which this node states service web with
// one task.
func oneService(t *testing.T) *state.Store {
	t.Helper()
	s := state.NewStore("self", 1, state.DefaultLimits(), new(tick))
	s.Join("net").SetDef(state.NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.96.0.0/16")})
	claim := state.VIPClaim{VIP4: netip.MustParseAddr("10.96.0.1"), Birth: 1}
	commit(t, s,
		state.Change{Kind: state.KindVIP, Key: "web", Body: string(state.AppendVIPClaim(nil, claim))}, webTask("web-1", 1))
	return s
}

// webTask states a task of service web at 10.0.0.last.
func webTask(id string, last byte) state.Change {
	e := &state.Endpoint{
		ID: id, Service: "web", IP4: netip.AddrFrom4([4]byte{10, 0, 0, last}), Weight: 1,
		Ports: []state.Port{{Number: 80, Proto: state.TCP}},
	}
	e.Normalize()
	return state.Change{Kind: state.KindEndpoint, Key: id, Group: "web", Body: string(state.AppendEndpoint(nil, e))}
}

// commit states changes and publishes them.
func commit(t *testing.T, s *state.Store, changes ...state.Change) {
	t.Helper()
	if _, err := s.Table("net").Commit(changes); err != nil {
		t.Fatal(err)
	}
	s.Publish(1 << 40)
}

func all(string) bool { return true }

// The feed plans what the views of its networks hold and what they announce, and
// forgets the networks that are left.
func TestFeedFollowsViews(t *testing.T) {
	t.Parallel()
	s, p := oneService(t), newPlanner(Node{})
	f := newViewFeed(s, all, p)
	defer f.close()
	if !f.follow([]string{"net"}) || f.follow([]string{"net"}) {
		t.Error("a network is new once")
	}
	view := s.View("net")
	if !f.follows("net", view) || f.synced("net") || f.allSynced() || len(p.Desired().Services) != 1 {
		t.Errorf("follows %v, synced %v, planned %v", f.follows("net", view), f.synced("net"), p.Desired().Services)
	}
	p.TakeDirty()
	commit(t, s, webTask("web-2", 2))
	<-f.ready
	if f.collect() {
		t.Error("a task is no change of everything")
	}
	if dirty := p.TakeDirty(); len(dirty) != 1 || len(p.Desired().Services[dirty[0]].Backends) != 2 {
		t.Errorf("another task changes %v", dirty)
	}
	s.Table("net").SetSynced()
	s.Publish(1 << 41)
	<-f.ready
	if !f.collect() || !f.allSynced() {
		t.Error("the sync of a network is not announced")
	}
	if !f.follow(nil) || len(p.Desired().Services) != 0 || f.allSynced() {
		t.Errorf("of a network that was left there is %v", p.Desired().Services)
	}
}

// What fails is tried again, and only that; then the kernel has caught up.
func TestReconcilerRetries(t *testing.T) {
	t.Parallel()
	s, p, d := oneService(t), newPlanner(Node{}), &stubDriver{refuse: map[OpKind]bool{SetBackend: true}}
	f := newViewFeed(s, all, p)
	defer f.close()
	k := kernel{
		driver: d, shadow: NewTable(), ready: true, pollRules: func() bool { return false }, count: &Counters{},
	}
	drains, fails := newDrains(time.Second, time.Second, quiet), failures{min: time.Second, max: time.Minute, log: quiet}
	r := reconciler{
		kernel: &k, planner: p, feed: &f, drains: &drains, failures: &fails,
		dirty: map[Key]struct{}{}, failed: map[Key]error{}, graceEnd: start,
	}
	f.follow([]string{"net"})
	r.collect()
	next := r.step(t.Context(), start)
	if len(r.failed) != 1 || !next.retryAt.Equal(start.Add(time.Second)) || next.drift || r.caughtUp(start) {
		t.Errorf("failed %v, next %+v, caught up %v", r.failed, next, r.caughtUp(start))
	}
	d.refuse, d.applied = nil, nil
	r.retryFailed()
	next = r.step(t.Context(), start.Add(time.Second))
	if len(r.failed) != 0 || !next.retryAt.IsZero() || fails.text != "" || !r.caughtUp(start) {
		t.Errorf("failed %v, next %+v, caught up %v", r.failed, next, r.caughtUp(start))
	}
	if !slices.ContainsFunc(d.applied, func(o Op) bool { return o.Kind == SetBackend }) || len(d.applied) != 1 {
		t.Errorf("tried again: %v", d.applied)
	}
	k.ready = false
	r.everything = true
	if next := r.step(t.Context(), start); !r.pending() || next != (reconcileOutcome{}) {
		t.Errorf("without a driver that is set up: %+v", next)
	}
}
