package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// pair returns the tables of two nodes in one network. b thinks a is alive.
func pair(limits Limits) (a, b *Table) {
	sa, sb := NewStore("a", 1, limits, new(testClock)), NewStore("b", 1, limits, new(testClock))
	sb.SetLiveness("a", Alive)
	return sa.Join("net"), sb.Join("net")
}

func opaque(key, body string) Change { return Change{Kind: 200, Key: key, Body: body} }

func remove(key string) Change { return Change{Kind: 200, Key: key, Delete: true} }

func commit(t testing.TB, table *Table, changes ...Change) {
	t.Helper()
	if _, err := table.Commit(changes); err != nil {
		t.Fatal(err)
	}
}

// pull brings b's replica of owner up to a's and returns the number of deltas.
func pull(t testing.TB, a, b *Table, owner NodeID, budget int) int {
	t.Helper()
	for n := range 1000 {
		h, _ := a.Head(owner)
		w, need := b.Want(owner, h)
		if !need {
			return n
		}
		if r, err := b.Apply(a.Delta(w, budget)); err != nil || r == Gap || r == Refused {
			t.Fatalf("%v %v", r, err)
		}
	}
	t.Fatal("no end of wanting")
	return 0
}

func keys(t *Table, owner NodeID) string {
	var ks []string
	if t.streams[owner] == nil {
		return ""
	}
	for _, e := range t.streams[owner].sorted() {
		ks = append(ks, e.Key()+"="+e.Body())
	}
	return strings.Join(ks, " ")
}

// TestFloorBoundary: owner and replica agree on who needs a snapshot also where
// the replica's version is the owner's floor (S5).
func TestFloorBoundary(t *testing.T) {
	for _, lag := range []int{0, 1, 2} { // how far behind the floor the replica is
		t.Run(fmt.Sprint(lag), func(t *testing.T) {
			a, b := pair(DefaultLimits())
			commit(t, a, opaque("k1", "1"), opaque("k2", "2"), opaque("k3", "3"))
			if lag == 2 {
				pull(t, a, b, "a", 1<<20)
			}
			commit(t, a, remove("k1"))
			if lag == 1 {
				pull(t, a, b, "a", 1<<20)
			}
			commit(t, a, remove("k2"))
			if lag == 0 {
				pull(t, a, b, "a", 1<<20)
			}
			h, _ := a.Head("a")
			if !a.Forget(h.Version) {
				t.Fatal("nothing forgotten")
			}
			h, _ = a.Head("a")
			if h.Floor != h.Version {
				t.Fatalf("floor %d, version %d", h.Floor, h.Version)
			}
			if n := pull(t, a, b, "a", 1<<20); n != 1 {
				t.Fatalf("%d deltas, want 1", n)
			}
			if got, _ := b.Head("a"); got != h || keys(b, "a") != "k3=3" || a.Checksum() != b.Checksum() {
				t.Fatalf("%+v %q, want %+v", got, keys(b, "a"), h)
			}
			if w, need := a.Want("a", h); need {
				t.Fatalf("I11: wants its own stream: %+v", w)
			}
		})
	}
}

// TestSnapshotPastTheFloor: chunks of a snapshot below a high floor do not
// start over each time (S4, G5; edge case 2).
func TestSnapshotPastTheFloor(t *testing.T) {
	a, b := pair(Limits{Entries: 1000, Bytes: 1 << 20, Owners: 9, Tombstones: 4})
	for i := range 100 {
		commit(t, a, opaque(fmt.Sprint("k", i), "v"))
	}
	for i := range 50 {
		commit(t, a, remove(fmt.Sprint("k", 2*i)))
	}
	if n := pull(t, a, b, "a", 100); n < 10 {
		t.Fatalf("%d chunks: not chunked", n)
	}
	if a.Hash() != b.Hash() || a.Len() != b.Len() {
		t.Fatal("not equal")
	}
}

// TestChunksAcrossCommits: the owner writes what a chunk has carried already
// while the next one is asked for (S4; edge case 4).
func TestChunksAcrossCommits(t *testing.T) {
	for _, first := range []bool{true, false} { // a snapshot, or a delta
		a, b := pair(DefaultLimits())
		commit(t, a, opaque("k0", "0"))
		if !first {
			pull(t, a, b, "a", 1<<20)
		}
		commit(t, a, opaque("k1", "1"), opaque("k2", "1"), opaque("k3", "1"), opaque("k4", "1"))
		h, _ := a.Head("a")
		w, _ := b.Want("a", h)
		if r, err := b.Apply(a.Delta(w, 40)); r != Staged {
			t.Fatalf("%v %v", r, err)
		}
		commit(t, a, opaque("k1", "2"), remove("k0"), remove("k3"), opaque("k3", "2"))
		pull(t, a, b, "a", 40)
		if got := keys(b, "a"); got != "k1=2 k2=1 k3=2 k4=1" || a.Hash() != b.Hash() {
			t.Fatalf("S3: snapshot %v: %q", first, got)
		}
	}
}

// TestDeletedStaysDeleted: a replica that was away beyond the floor brings
// nothing back, and delete and re-create arrive as what came last (S1, S6;
// edge cases 5 and 6).
func TestDeletedStaysDeleted(t *testing.T) {
	sc := NewStore("c", 1, DefaultLimits(), new(testClock))
	a, b := pair(DefaultLimits())
	c := sc.Join("net")
	commit(t, a, opaque("k1", "old"), opaque("k2", "old"))
	pull(t, a, b, "a", 1<<20)
	pull(t, a, c, "a", 1<<20) // then c is away
	commit(t, a, remove("k1"), remove("k2"))
	commit(t, a, opaque("k2", "new"))
	pull(t, a, b, "a", 1<<20)
	h, _ := a.Head("a")
	a.Forget(h.Version)
	pull(t, a, b, "a", 1<<20)
	old, _ := c.Head("a")
	if w, need := b.Want("a", old); need {
		t.Fatalf("S2: wants an older head: %+v", w)
	}
	if r, err := b.Apply(c.Delta(Want{Owner: "a"}, 1<<20)); r != Ignored || err != nil {
		t.Fatalf("S2: old snapshot: %v %v", r, err)
	}
	pull(t, b, c, "a", 1<<20) // through a relay
	if keys(b, "a") != "k2=new" || keys(c, "a") != "k2=new" {
		t.Fatalf("b %q c %q", keys(b, "a"), keys(c, "a"))
	}
}

// TestNewLifeIsServedWhenComplete: the old incarnation stays until the new one
// is here in full (S4, I5).
func TestNewLifeIsServedWhenComplete(t *testing.T) {
	a, b := pair(DefaultLimits())
	commit(t, a, endpoint(t, "t1", "web", "10.0.0.1"), endpoint(t, "t2", "web", "10.0.0.2"))
	pull(t, a, b, "a", 1<<20)
	b.Publish(1)
	a2 := NewStore("a", 2, DefaultLimits(), new(testClock)).Join("net")
	commit(t, a2, endpoint(t, "t1", "web", "10.0.0.1"), endpoint(t, "t3", "web", "10.0.0.3"))
	h, _ := a2.Head("a")
	for {
		w, need := b.Want("a", h)
		if !need {
			break
		}
		r, err := b.Apply(a2.Delta(w, 1))
		b.Publish(2)
		got := ids(b.View().Service("web").Members.AppendTo(nil))
		switch {
		case err != nil:
			t.Fatal(err)
		case r == Staged && !slices.Equal(got, []string{"t1@a#2", "t2@a#3"}) &&
			!slices.Equal(got, []string{"t1@a#1", "t2@a#2"}):
			t.Fatalf("half a snapshot is visible: %v", got)
		case r == Applied && (len(got) != 2 || !strings.HasPrefix(got[1], "t3")):
			t.Fatalf("not swapped: %v", got)
		}
	}
	late := &Delta{Network: "net", Owner: "a", Inc: 1, From: 3, After: 3, To: 9, Upto: 9, Floor: 1}
	if r, _ := b.Apply(late); r != Ignored {
		t.Fatalf("S2: a delta of the former life: %v", r)
	}
}

// TestOwnStream covers S7: what an owner makes of its own stream in the mesh.
func TestOwnStream(t *testing.T) {
	a, _ := pair(DefaultLimits())
	if !a.SelfAhead(Head{Inc: 1, Version: 5}) || a.SelfAhead(Head{Inc: 0, Version: 5}) {
		t.Fatal("S7: an owner that has said nothing")
	}
	commit(t, a, opaque("k", "v"))
	h, _ := a.Head("a")
	for _, c := range []struct {
		name string
		h    Head
		want bool
	}{
		{"equal", h, false},
		{"older", Head{Inc: 1, Version: h.Version - 1, Floor: 1, Sum: 9}, false},
		{"ahead", Head{Inc: 1, Version: h.Version + 1}, true},
		{"higher floor", Head{Inc: 1, Version: h.Version, Floor: h.Floor + 1, Sum: h.Sum}, true},
		{"other life", Head{Inc: 2}, true},
		{"same head, other content", Head{Inc: 1, Version: h.Version, Floor: h.Floor, Sum: h.Sum + 1}, true},
		{"absurd", Head{Inc: 1<<64 - 1, Version: 1}, false},
	} {
		if got := a.SelfAhead(c.h); got != c.want {
			t.Errorf("S7: %s: SelfAhead(%+v) = %v", c.name, c.h, got)
		}
	}
	foreign := &Delta{Network: "net", Owner: "a", Inc: 9, To: 9, Upto: 9, Snapshot: true}
	if r, err := a.Apply(foreign); r != Ignored || err != nil {
		t.Fatalf("S1: %v %v", r, err)
	}
	if now, _ := a.Head("a"); now != h || keys(a, "a") != "k=v" {
		t.Fatal("S1: a peer changed our stream")
	}
	a.Reincarnate(9)
	if now, _ := a.Head("a"); now.Inc != 9 || now.Floor != now.Version || now.Sum != h.Sum {
		t.Fatalf("S7: %+v", now)
	}
}

// TestYielded: the second of two live nodes with one name is a replica (S7).
func TestYielded(t *testing.T) {
	s := NewStore("a", 1, DefaultLimits(), new(testClock))
	a := s.Join("net")
	commit(t, a, opaque("mine", "1"))
	other := NewStore("a", 5, DefaultLimits(), new(testClock)).Join("net")
	commit(t, other, opaque("theirs", "1"))
	s.SetYielded(true)
	pull(t, other, a, "a", 1<<20)
	if _, err := a.Commit([]Change{opaque("mine", "2")}); !errors.Is(err, ErrYielded) || keys(a, "a") != "theirs=1" {
		t.Fatalf("%v %q", err, keys(a, "a"))
	}
	h, _ := a.Head("a")
	a.Leave()
	s.Reincarnate(7)
	if now, _ := a.Head("a"); now != h {
		t.Fatalf("S1: changed the other's stream: %+v", now)
	}
	if !s.Join("later").yielded {
		t.Fatal("S7: a network that is joined later is yielded too")
	}
}

// TestBuried covers S9 and I7: what was dropped comes back by a new life only.
func TestBuried(t *testing.T) {
	a, b := pair(DefaultLimits())
	commit(t, a, endpoint(t, "t1", "web", "10.0.0.1"))
	pull(t, a, b, "a", 1<<20)
	h, _ := a.Head("a")
	b.SetOffered("a", false)
	if d := b.Delta(Want{Owner: "a"}, 100); d != nil || !b.Heads(func(NodeID) bool { return true })[0].Kept ||
		b.Hash() != 0 {
		t.Fatal("S9: still offered")
	}
	b.Retire("a")
	b.Publish(1)
	if b.Len() != 0 || b.Checksum() != 0 || b.Hash() != 0 || b.View().Service("web") != nil {
		t.Fatal("S9: buried but here")
	}
	if hs := b.Heads(func(NodeID) bool { return true }); len(hs) != 1 || !hs[0].Retired || hs[0].Head != h {
		t.Fatalf("S9: graveyard %+v", hs)
	}
	if _, need := b.Want("a", h); need {
		t.Fatal("I7: wants the dead")
	}
	if r, _ := b.Apply(a.Delta(Want{Owner: "a"}, 1<<20)); r != Ignored || b.Len() != 0 {
		t.Fatalf("I7: resurrected: %v", r)
	}
	a.Reincarnate(2)
	pull(t, a, b, "a", 1<<20)
	hs := b.Heads(func(NodeID) bool { return true })
	if len(hs) != 1 || hs[0].Retired || b.Len() != 1 || b.RetiredOwners() != 0 {
		t.Fatalf("S9: a new life: %+v", hs)
	}
	b.Retire("a")
	b.Readmit("a")
	pull(t, a, b, "a", 1<<20)
	if b.Len() != 1 {
		t.Fatal("S9: exhumed")
	}
	b.Retire("b")
	if _, ok := b.Head("b"); ok && b.RetiredOwners() > 0 {
		t.Fatal("S9: buried itself")
	}
}

// TestRetire is a graceful leave: the last, empty snapshot (S9).
func TestRetire(t *testing.T) {
	a, b := pair(DefaultLimits())
	commit(t, a, endpoint(t, "t1", "web", "10.0.0.1"), opaque("k", "v"))
	pull(t, a, b, "a", 1<<20)
	a.Leave()
	pull(t, a, b, "a", 1<<20)
	b.Publish(1)
	if a.Len() != 0 || b.Len() != 0 || b.View().Service("web") != nil || a.Hash() != b.Hash() {
		t.Fatal("S9: something is left")
	}
}

// TestPoison: what cannot be read is not shown, counts in the checksum, and is
// relayed as it came; the rest is not harmed (G8, S11, edge case 20).
func TestPoison(t *testing.T) {
	a, b := pair(DefaultLimits())
	c := NewStore("c", 1, DefaultLimits(), new(testClock)).Join("net")
	c.live["a"] = Alive
	commit(t, a, endpoint(t, "t1", "web", "10.0.0.1"))
	s := a.own()
	a.touch(s, func() {
		for _, r := range []Record{
			{Kind: KindEndpoint, Key: "t2", Group: "web", Body: "\x01\x04\x0a"},
			{Kind: KindEndpoint, Key: "UPPER", Group: "web", Body: endpoint(t, "x", "web", "10.0.0.9").Body},
			{Kind: KindVIP, Key: "web", Body: "\x01\x01\x01"},
			{Kind: KindSettings, Key: "web", Body: "\xff"},
			{Kind: 77, Key: "future", Group: "g", Body: "anything"},
		} {
			r.Version = s.head.Version + 1
			s.head.Version++
			a.put(s, a.entry(s, r))
		}
	})
	pull(t, a, b, "a", 1)
	pull(t, b, c, "a", 1)
	c.Publish(1)
	if a.Checksum() != c.Checksum() || content(a.own()) != content(c.streams["a"]) || c.Poison() != 4 {
		t.Fatalf("G8: not relayed as it came; poison %d", c.Poison())
	}
	if got := ids(c.View().Service("web").Members.AppendTo(nil)); len(got) != 1 || !strings.HasPrefix(got[0], "t1@") {
		t.Fatalf("G8: shown: %v", got)
	}
	commit(t, a, Change{Kind: KindEndpoint, Key: "t2", Delete: true}, endpoint(t, "t3", "web", "10.0.0.3"))
	pull(t, a, c, "a", 1<<20)
	c.Publish(2)
	if n := c.View().Service("web").Members.Len(); n != 2 {
		t.Fatalf("G8: %d members", n)
	}
}

// TestUnknownFieldsSurvive: a body with fields of the future is read and
// relayed (S11, edge case 23).
func TestUnknownFieldsSurvive(t *testing.T) {
	a, b := pair(DefaultLimits())
	c := endpoint(t, "t1", "web", "10.0.0.1")
	c.Body += "\xf0\x03new"
	commit(t, a, c)
	pull(t, a, b, "a", 1<<20)
	b.Publish(1)
	if es := b.View().Service("web").Members.AppendTo(nil); len(es) != 1 || es[0].Body() != c.Body ||
		es[0].Endpoint().Ports[0].Number != 80 {
		t.Fatal("S11: a field of the future is lost")
	}
}

// TestContentDiffers: what does not give the content that its owner had is
// never shown; the replica asks for the whole, and never goes back (S2, S4, S10).
func TestContentDiffers(t *testing.T) {
	a, b := pair(DefaultLimits())
	commit(t, a, opaque("k1", "1"), opaque("k2", "2"))
	bad := *a.Delta(Want{Owner: "a"}, 1<<20)
	bad.Records = bad.Records[1:]
	if r, err := b.Apply(&bad); r != Refused || err == nil || keys(b, "a") != "" {
		t.Fatalf("S10: a wrong snapshot: %v %v", r, err)
	}
	pull(t, a, b, "a", 1<<20)
	before, h := keys(b, "a"), b.streams["a"].head
	commit(t, a, opaque("k3", "3"), opaque("k1", "4"))
	bad = *a.Delta(b.WantNext("a"), 1<<20)
	bad.Records = bad.Records[1:]
	if r, err := b.Apply(&bad); r != Gap || err == nil || keys(b, "a") != before || b.streams["a"].head != h {
		t.Fatalf("S4: a wrong delta: %v %v", r, err)
	}
	if w, need := b.Want("a", bad.Head()); !need || w.After != 0 {
		t.Fatalf("S10: does not ask for the whole: %+v %v", w, need)
	}
	old := Delta{Network: "net", Owner: "a", Inc: h.Inc, To: h.Version - 1, Upto: h.Version - 1, Snapshot: true}
	if r, _ := b.Apply(&old); r != Ignored {
		t.Fatalf("S2: went back: %v", r)
	}
	if pull(t, a, b, "a", 1<<20); keys(b, "a") != keys(a, "a") || b.streams["a"].resync {
		t.Fatal("S10: not healed")
	}
}
