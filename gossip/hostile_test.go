package gossip

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"meshd/state"
)

// The tests of this file are a peer that holds the key and means harm (G8).
// It can lie about itself, and about owners that the mesh has not met or that
// are ahead of what we hold; it must not do more.

// known is what a core holds of others, heads and content.
func known(c *Core) string {
	var s strings.Builder
	for _, t := range c.store.Tables() {
		for _, o := range t.Owners() {
			h, _ := t.Head(o)
			fmt.Fprintf(&s, "%q %s %+v %d\n", t.Network(), o, h, len(t.OwnerEntries(o, state.KindEndpoint)))
		}
	}
	return s.String()
}

func TestHostileTruncated(t *testing.T) {
	a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
	packets := exchange(a, b)
	was := known(a)
	for _, p := range packets {
		for n := range p {
			if p[1] == 1 && p[2] == 'a' {
				continue // our own name: see TestHostileSelf
			}
			a.Receive(10*time.Second, p[:n])
		}
	}
	if got := known(a); got != was {
		t.Errorf("G8: truncated packets changed the tables from\n%s to\n%s", was, got)
	}
}

func TestHostileReplay(t *testing.T) {
	a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
	packets := exchange(a, b)
	change := []state.Change{{Kind: state.KindEndpoint, Key: "t-b", Delete: true}}
	if err := b.Commit(20*time.Second, "net", change); err != nil {
		t.Fatal(err)
	}
	exchange(a, b)
	was := known(a)
	for range 20 {
		for _, p := range packets {
			a.Receive(30*time.Second, p)
		}
	}
	if got := known(a); got != was {
		t.Errorf("S2: old packets changed the tables from\n%s to\n%s", was, got)
	}
}

// TestHostileContradiction: other content under a version that we hold, or
// content that does not give the checksum of its head, changes nothing.
func TestHostileContradiction(t *testing.T) {
	a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
	exchange(a, b)
	h, _ := a.store.Table("net").Head("b")
	was := known(a)
	lie := state.Record{Kind: 99, Key: "lie", Body: "x", Version: h.Version}
	for _, d := range []*state.Delta{
		{Network: "net", Owner: "b", Inc: h.Inc, To: h.Version, Upto: h.Version, Sum: 1, Snapshot: true, Records: []state.Record{lie}},
		{Network: "net", Owner: "b", Inc: h.Inc, From: h.Version, After: h.Version, To: h.Version + 1, Upto: h.Version + 1, Sum: 1},
		{Network: "net", Owner: "b", Inc: h.Inc + 1, To: 5, Upto: 5, Sum: 1, Snapshot: true, Records: []state.Record{{Kind: 99, Key: "lie", Version: 3}}},
		{Network: "net", Owner: "a", Inc: 1 << 40, To: 5, Upto: 5, Snapshot: true},
	} {
		e := newEncoder("evil", 9)
		e.open(framePush)
		e.byte(0)
		e.delta(d)
		e.close()
		a.Receive(30*time.Second, e.b)
		if got := a.store.Table("net").OwnerEntries("a", state.KindEndpoint); len(got) != 1 {
			t.Errorf("S1: our own stream has %d entries", len(got))
		}
		if d.Owner == "b" && known(a) != was {
			t.Errorf("S10: %+v changed the tables", d)
		}
	}
}

// TestHostileGrowth: made-up names, heads and wants cost a bounded memory and
// a bounded answer, and are forgotten.
func TestHostileGrowth(t *testing.T) {
	a := testCore(t, "a", "b")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	now := 10 * time.Second
	for k := range 3000 {
		e := newEncoder(state.NodeID(fmt.Sprintf("made-up-%d", k)), uint64(k))
		var hs []state.OwnerHead
		for j := range 40 {
			hs = append(hs, state.OwnerHead{Owner: state.NodeID(fmt.Sprintf("nobody-%d-%d", k, j)), Head: state.Head{Inc: 1, Version: 9}})
		}
		e.heads(frameHot, "net", 0, nil, false, hs)
		a.Receive(now, e.b)
		now += time.Millisecond
		a.Tick(now)
		a.Drain()
	}
	if _, pulls := a.Queued(); pulls > maxPulls {
		t.Errorf("G7: %d pulls under way", pulls)
	}
	for range 300 {
		now += 10 * time.Millisecond
		a.Tick(now)
		a.Drain()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if _, pulls := a.Queued(); pulls > 0 {
		t.Errorf("G7: %d pulls of what nobody has are still under way", pulls)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("G8: grew by %d bytes", grown)
	}
}

// TestHostileSelf: somebody who uses our name makes us say so, not fall silent
// for good, and does not make our incarnation run away.
func TestHostileSelf(t *testing.T) {
	a := testCore(t, "a", "b")
	now := 10 * time.Second
	for range 1000 {
		e := newEncoder("a", 0)
		e.ping(framePing, pingFrame{target: "a"})
		now += time.Millisecond
		a.Receive(now, e.b)
	}
	if !a.Yielded() {
		t.Fatal("S7: the later of two did not yield")
	}
	for now < 5*time.Minute {
		now += time.Second
		a.Tick(now)
		a.Drain()
	}
	if a.Yielded() {
		t.Error("S7: still silent minutes after the other was last heard")
	}
	if inc := a.store.Incarnation(); inc > 8 {
		t.Errorf("S7: incarnation %d", inc)
	}
}
