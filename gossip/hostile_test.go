package gossip

import (
	"fmt"
	"net/netip"
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
		{
			Network: "net", Owner: "b", Inc: h.Inc, To: h.Version, Upto: h.Version, Sum: 1, Snapshot: true,
			Records: []state.Record{lie},
		},
		{
			Network: "net", Owner: "b", Inc: h.Inc, From: h.Version, After: h.Version, To: h.Version + 1,
			Upto: h.Version + 1, Sum: 1,
		},
		{
			Network: "net", Owner: "b", Inc: h.Inc + 1, To: 5, Upto: 5, Sum: 1, Snapshot: true,
			Records: []state.Record{{Kind: 99, Key: "lie", Version: 3}},
		},
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
			hs = append(hs, state.OwnerHead{
				Owner: state.NodeID(fmt.Sprintf("nobody-%d-%d", k, j)),
				Head:  state.Head{Inc: 1, Version: 9},
			})
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

// TestHostileSelf: packets with our name, also with the boot id of somebody who
// started long before us, and answers to challenges that we did not send, do not
// make us silent, nor our incarnation run away, nor us a source of packets.
func TestHostileSelf(t *testing.T) {
	a := testCore(t, "a", "b")
	now, sent := 10*time.Second, 0
	for k := range 3000 {
		e := newEncoder("a", 0)
		switch k % 3 {
		case 1:
			e.ping(framePing, pingFrame{target: "a", addr: netip.MustParseAddrPort("10.66.6.6:7946")})
		case 2:
			e.ping(frameAck, pingFrame{nonce: uint64(k), target: "a", up: time.Hour})
		}
		now += time.Millisecond
		a.Receive(now, e.b)
		a.Tick(now)
		sends, _ := a.Drain()
		for _, s := range sends {
			if s.To == "a" {
				sent++
			}
		}
	}
	if a.Yielded() {
		t.Error("S7: packets that prove nothing made the node yield its name")
	}
	if sent > 40 {
		t.Errorf("G7: %d packets in three seconds to an address that a stranger named", sent)
	}
	if inc := a.store.Incarnation(); inc > 8 {
		t.Errorf("S7: incarnation %d", inc)
	}
}

// TestIncarnationsArePaced: a peer that says over and over that it holds more of
// our stream than we do gets few answers.
func TestIncarnationsArePaced(t *testing.T) {
	a := testCore(t, "a", "b")
	exchange(a, testCore(t, "b", "a"))
	now, was, events := 10*time.Second, a.Stats.Reincarnations, 0
	for range 10000 {
		h, _ := a.store.Global().Head("a")
		h.Inc++
		e := newEncoder("b", 1)
		e.heads(frameHot, "", 0, nil, false, []state.OwnerHead{{Owner: "a", Head: h}})
		now += time.Millisecond
		a.Receive(now, e.b)
		a.Tick(now)
		_, es := a.Drain()
		for _, e := range es {
			if e.Kind == EventReincarnate {
				events++
			}
		}
	}
	if n := a.Stats.Reincarnations - was; n == 0 || n > 6 || events > 6 {
		t.Errorf("S7: %d incarnations and %d events in ten seconds", n, events)
	}
}

// TestLongDeadAreNotLatelyLost: S12. A node that starts in a mesh of which most
// went away before does not take itself for the one that is cut off.
func TestLongDeadAreNotLatelyLost(t *testing.T) {
	a, b := testCore(t, "a", "b", "c", "d"), testCore(t, "b", "a")
	for k := range 6 {
		id := state.NodeID(fmt.Sprintf("gone%d", k))
		e := newEncoder("b", 1)
		e.open(framePush)
		e.byte(0)
		d, err := ownerDelta(id)
		if err != nil {
			t.Fatal(err)
		}
		e.delta(d)
		e.close()
		a.Receive(2*time.Second, e.b)
	}
	exchange(a, b)
	for now := 6 * time.Second; now < 40*time.Second; now += 20 * time.Millisecond {
		a.Tick(now)
		a.Drain()
		a.liveness.heardFrom("b", 1)
		a.liveness.heardFrom("c", 1)
		a.liveness.heardFrom("d", 1)
		if a.Preserving() {
			t.Fatalf("S12: after %v the long dead keep the node degraded", now)
		}
	}
	if l := a.store.Liveness("gone1"); l != state.Dead {
		t.Errorf("gone1 is %v", l)
	}
}

// ownerDelta is the whole stream of a node that says who it is.
func ownerDelta(id state.NodeID) (*state.Delta, error) {
	s := state.NewStore(id, 1, state.DefaultLimits(), new(counter))
	_, err := s.Global().Commit([]state.Change{{
		Kind: state.KindNode,
		Body: string(state.AppendNode(nil, state.NodeInfo{Boot: 1, Addr: netip.MustParseAddrPort("10.9.9.9:7946")})),
	}})
	if err != nil {
		return nil, err
	}
	return s.Global().Delta(state.Want{Owner: id}, 1<<20), nil
}

// pass lets two cores talk for a while, and looks after each step.
func pass(a, b *Core, from, to time.Duration, look func(now time.Duration)) {
	for now := from; now < to; now += 10 * time.Millisecond {
		for _, c := range []*Core{a, b} {
			other := map[*Core]*Core{a: b, b: a}[c]
			c.Tick(now)
			sends, _ := c.Drain()
			for _, s := range sends {
				if s.To == other.cfg.Self {
					other.Receive(now, s.Data)
				}
			}
		}
		look(now)
	}
}

// TestHostilePushes: a peer that pushes without end has this node drop some of
// what it hands on, but nothing that it says itself.
func TestHostilePushes(t *testing.T) {
	a := testCore(t, "a", "b", "c", "d")
	now := 30 * time.Second
	a.Tick(now)
	a.Drain()
	for round := range 5 {
		now += 50 * time.Millisecond
		for i := range maxQueued {
			a.push.enqueue(pushItem{delta: &state.Delta{
				Owner: "evil", Inc: 1, To: uint64(i), Upto: uint64(i),
				Records: []state.Record{{Kind: 99, Key: "k", Body: strings.Repeat("x", 900)}},
			}, from: "evil"})
		}
		key := fmt.Sprint("own", round)
		if err := a.Commit(now, "", []state.Change{{Kind: 99, Key: key, Body: "v"}}); err != nil {
			t.Fatal(err)
		}
		now += time.Second / 10
		a.Tick(now)
		sends, _ := a.Drain()
		said := map[state.NodeID]bool{}
		for _, s := range sends {
			if strings.Contains(string(s.Data), key) {
				said[s.To] = true
			}
		}
		if len(said) != 3 {
			t.Errorf("round %d: what we wrote was pushed to %d of 3", round, len(said))
		}
	}
	if a.Stats.PushDropped == 0 {
		t.Error("the flood was none")
	}
}

// TestHostileOwners: streams of thousands of made-up owners do not make this node,
// and those whom it asks, ping them all.
func TestHostileOwners(t *testing.T) {
	a := testCore(t, "a", "b", "c", "d")
	now := 30 * time.Second
	a.Tick(now)
	a.Drain()
	e := newEncoder("b", 9)
	e.open(framePush)
	e.byte(0)
	for i := range 4000 {
		e.delta(&state.Delta{Owner: state.NodeID(fmt.Sprint("made-up", i)), Inc: 1, To: 1, Upto: 1, Snapshot: true})
	}
	e.close()
	a.Receive(now, e.b)
	if n := len(a.store.Global().Owners()); n < 4000 {
		t.Fatalf("%d owners", n)
	}
	if n := a.pings.pinging.len(); n > maxNamedChecks {
		t.Fatalf("%d members are checked", n)
	}
	a.MemberAlive(now, "made-up3999", netip.MustParseAddrPort("10.9.0.9:7946"))
	if got := a.roster.members["made-up3999"].phase; got != phaseAlive {
		t.Fatalf("one that is listed is in phase %d", got)
	}
}
