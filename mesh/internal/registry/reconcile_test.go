package registry

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/state"
)

// meshOf resolves statements as a store does, for a node "me" that states own.
func meshOf(t *testing.T, own []state.NetworkClaim, others ...state.NetworkClaim) *state.Definitions {
	t.Helper()
	s := state.NewStore("me", 1, state.DefaultLimits(), &ticks{})
	commit := func(s *state.Store, cs []state.NetworkClaim) {
		var changes []state.Change
		for _, c := range cs {
			changes = append(changes, networkChange(c))
		}
		if _, err := s.Global().Commit(changes); err != nil {
			t.Fatal(err)
		}
	}
	commit(s, own)
	for i, c := range others {
		o := state.NewStore(state.NodeID(fmt.Sprintf("n%d", i)), 1, state.DefaultLimits(), &ticks{})
		commit(o, []state.NetworkClaim{c})
		if _, err := s.Apply(o.Global().Delta(state.Want{Owner: o.Self()}, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	s.Publish(0)
	return s.Definitions()
}

type ticks struct{ n uint64 }

func (c *ticks) Tick() uint64     { c.n++; return c.n }
func (c *ticks) Time() uint64     { return c.n }
func (c *ticks) Witness(n uint64) { c.n = max(c.n, n) }

func claimOf(name, pool string, birth uint64) state.NetworkClaim {
	return state.NetworkClaim{NetworkDef: state.NetworkDef{Name: name, Subnet4: netip.MustParsePrefix(pool), Birth: birth}}
}

func removalOf(name, pool string, birth, lamport uint64) state.NetworkClaim {
	c := claimOf(name, pool, birth)
	c.Removed, c.Lamport = true, lamport
	return c
}

// What a node carries follows from what is registered and what the mesh says,
// and from nothing else.
func TestReconcile(t *testing.T) {
	const pool = "10.96.0.0/16"
	def := &networkDef{Subnet4: pool, Birth: 3}
	now := time.Now()
	with := func(f func(l *localNetwork)) *Snapshot {
		l := newLocalNetwork()
		f(l)
		return &Snapshot{networks: map[string]*localNetwork{"net": l}}
	}
	own := with(func(l *localNetwork) { l.def = def })
	carrier := with(func(l *localNetwork) { l.carried = def })
	task := func(l *localNetwork) { l.tasks.set("t", &savedTask{Service: "web"}); l.counts.set("web", 1) }
	busy := with(func(l *localNetwork) { task(l); l.carried = def })
	claim, removal := claimOf("net", pool, 3), removalOf("net", pool, 3, 9)
	for _, tt := range []struct {
		name     string
		have     *Snapshot
		own      []state.NetworkClaim
		mesh     []state.NetworkClaim
		joined   []string
		unsynced bool
		want     string // def and carried of net, removals, what is stated, what is left
		dirty    bool
	}{
		{
			name: "its stream is empty, and others say otherwise", have: busy, joined: []string{"net"},
			mesh: []state.NetworkClaim{claimOf("net", "10.1.0.0/16", 0)}, want: "- 3 [] [net] []",
		},
		{
			name: "two definitions, by nobody who answers", have: with(task), joined: []string{"net"},
			mesh: []state.NetworkClaim{claim, claimOf("net", "10.1.0.0/16", 0)}, want: "- - [] [] []",
		},
		{name: "nothing", have: &Snapshot{}, want: "- - [] [] []"},
		{name: "its own", have: own, own: []state.NetworkClaim{claim}, joined: []string{"net"}, want: "3 3 [] [net] []", dirty: true},
		{name: "another's, by a task", have: with(task), mesh: []state.NetworkClaim{claim}, joined: []string{"net"}, want: "- 3 [] [net] []", dirty: true},
		{name: "not before the mesh is known", have: with(task), mesh: []state.NetworkClaim{claim}, joined: []string{"net"}, unsynced: true, want: "- - [] [] []"},
		{name: "carried already", have: busy, own: []state.NetworkClaim{claim}, joined: []string{"net"}, want: "- 3 [] [net] []"},
		{name: "no longer used", have: carrier, own: []state.NetworkClaim{claim}, joined: []string{"net"}, want: "- - [] [] [net]", dirty: true},
		{name: "a gateway's", have: carrier, own: []state.NetworkClaim{claimOf("keep", "10.97.0.0/16", 1)}, joined: []string{"keep"}, want: "- - [] [keep] []", dirty: true},
		{name: "its own, removed by somebody", have: own, mesh: []state.NetworkClaim{removal}, joined: []string{"net"}, want: "- - [net] [net-] [net]", dirty: true},
		{name: "carried, removed by somebody", have: carrier, mesh: []state.NetworkClaim{removal}, joined: []string{"net"}, want: "- - [net] [net-] [net]", dirty: true},
		{name: "in use, removed by somebody", have: busy, own: []state.NetworkClaim{claim}, mesh: []state.NetworkClaim{removal}, joined: []string{"net"}, want: "- 3 [] [net] []"},
		{name: "the removal of an earlier one", have: own, own: []state.NetworkClaim{claim}, mesh: []state.NetworkClaim{removalOf("net", pool, 1, 2)}, joined: []string{"net"}, want: "3 3 [] [net] []", dirty: true},
		{name: "a removal of what it never had", have: &Snapshot{}, mesh: []state.NetworkClaim{removal}, want: "- - [] [] []"},
	} {
		d := tt.have.draft()
		s := reconcile(d, &situation{
			defs: meshOf(t, tt.own, tt.mesh...), joined: tt.joined, synced: !tt.unsynced,
			keep: []string{"keep"},
		}, testBounds(), now)
		got := outcome(d, s)
		if got != tt.want || (len(d.touched) > 0) != tt.dirty {
			t.Errorf("%s: got %s, dirty %v; want %s, %v", tt.name, got, len(d.touched) > 0, tt.want, tt.dirty)
		}
		// Once more, with nothing new: nothing changes.
		next := d.done()
		again := next.draft()
		if s = reconcile(again, &situation{
			defs: meshOf(t, tt.own, tt.mesh...), joined: tt.joined, synced: !tt.unsynced,
			keep: []string{"keep"},
		}, testBounds(), now); len(again.touched) > 0 {
			t.Errorf("%s: not settled: %s", tt.name, outcome(again, s))
		}
	}
}

func outcome(d *draft, s consequences) string {
	birth := func(f func(*localNetwork) *networkDef) string {
		if l := d.networks["net"]; l != nil && f(l) != nil {
			return fmt.Sprint(f(l).Birth)
		}
		return "-"
	}
	removed, states := []string{}, []string{}
	for i := range d.removed {
		removed = append(removed, d.removed[i].name)
	}
	for _, c := range s.global {
		claim, err := state.ParseNetwork(c.Key, c.Body)
		if err != nil {
			return err.Error()
		}
		if claim.Removed {
			c.Key += "-"
		}
		states = append(states, c.Key)
	}
	return fmt.Sprintf("%s %s %v %v %v", birth(func(l *localNetwork) *networkDef { return l.def }),
		birth(func(l *localNetwork) *networkDef { return l.carried }), removed, states, slices.Concat([]string{}, s.leave))
}

// A removal is stated for two days, by at most so many.
func TestRemovalsAreBounded(t *testing.T) {
	now := time.Now()
	d := (&Snapshot{}).draft()
	for i := range 20 {
		d.remember(removedNetwork{name: fmt.Sprint("n", i), until: now.Add(time.Duration(i) * time.Hour)}, 10)
	}
	if len(d.removed) != 10 || d.removed[0].name != "n10" || d.removed[9].name != "n19" {
		t.Errorf("kept %v", d.removed)
	}
	d.forgetRemovals(now.Add(15 * time.Hour))
	if len(d.removed) != 4 {
		t.Errorf("after 15 hours %d are left", len(d.removed))
	}
}
