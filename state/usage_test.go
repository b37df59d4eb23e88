package state

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// checkUsage holds the counts of a store against what it holds.
func checkUsage(t testing.TB, s *Store) {
	t.Helper()
	var total usage
	for _, table := range s.Tables() {
		var use usage
		for _, st := range table.streams {
			use.records += len(st.live) + len(st.dead)
			use.bytes += st.bytes
			if st.stage != nil {
				use.staged += st.stage.bytes
			}
			if st.head.Inc == 0 && st.stage == nil {
				t.Fatalf("S19: an empty stream of %q", st.owner)
			}
		}
		if use != table.use {
			t.Fatalf("S19: %+v counted, %+v held", table.use, use)
		}
		total.add(use, 1)
	}
	if total != s.total {
		t.Fatalf("S19: %+v counted in all, %+v held", s.total, total)
	}
}

// TestRefusedDeltasMakeNoOwner covers S19: deltas that are not taken leave
// nothing behind, however many names they come under.
func TestRefusedDeltasMakeNoOwner(t *testing.T) {
	s := NewStore("b", 1, Limits{Entries: 100, Bytes: 1 << 16, Owners: 10, Tombstones: 3}, new(testClock))
	table := s.Join("net")
	for i := range 50 {
		d := forge(NodeID(fmt.Sprintf("made-up-%d", i)), 1, 5, Record{Kind: 200, Key: "k"})
		d.Sum++
		if r, err := s.Apply(d); r != Refused || err == nil {
			t.Fatal(r, err)
		}
	}
	checkUsage(t, s)
	if n := len(table.Owners()); n != 0 {
		t.Fatalf("S19: %d owners of nothing", n)
	}
}

// TestJunkKeepsNobodyOut covers S19: when there is no room for another owner,
// those of whom nothing is known give way to one that lives.
func TestJunkKeepsNobodyOut(t *testing.T) {
	s := NewStore("b", 1, Limits{Entries: 100, Bytes: 1 << 16, Owners: 10, Tombstones: 3}, new(testClock))
	table := s.Join("net")
	s.SetLiveness("friend", Alive)
	hear(t, s, "friend", 5, opaque("k", "v"))
	for i := range 50 {
		_, _ = s.Apply(forge(NodeID(fmt.Sprintf("made-up-%d", i)), 1, 5, Record{Kind: 200, Key: "k"}))
	}
	if len(table.Owners()) != 10 || !strings.Contains(s.Full(), "nodes: 10 of 10") {
		t.Fatalf("%v %q", table.Owners(), s.Full())
	}
	for i := range 8 {
		o := NodeID(fmt.Sprintf("honest-%d", i))
		s.SetLiveness(o, Alive)
		if r, err := s.Apply(forge(o, 1, 5, Record{Kind: 200, Key: "k"})); r != Applied {
			t.Fatalf("S19: %s is kept out: %v", o, err)
		}
		checkUsage(t, s)
	}
	if keys(table, "friend") == "" || keys(table, "honest-0") == "" || table.RetiredOwners() != 0 {
		t.Fatal("S19: an owner that lives was evicted")
	}
}

// TestTotals covers S19: all owners together are bounded, and so are incomplete deltas.
func TestTotals(t *testing.T) {
	limits := Limits{Entries: 100, Bytes: 1 << 20, Owners: 100, Tombstones: 3, TableBytes: 1000, StageBytes: 500}
	s := NewStore("b", 1, limits, new(testClock))
	table := s.Join("net")
	big := Record{Kind: 200, Key: "k", Body: strings.Repeat("x", 400), Version: 1}
	for i := range 5 {
		o := NodeID(fmt.Sprintf("n%d", i))
		s.SetLiveness(o, Alive)
		r, err := s.Apply(forge(o, 1, 5, big))
		if i < 2 && r != Applied || i >= 2 && !errors.Is(err, ErrQuota) {
			t.Fatalf("S19: %d: %v %v", i, r, err)
		}
		checkUsage(t, s)
	}
	if s.Full() == "" {
		t.Fatal("S19: not told")
	}
	s.SetLiveness("n0", Dead)
	if r, err := s.Apply(forge("n4", 1, 5, big)); r != Applied {
		t.Fatalf("S19: a dead owner's does not make room: %v", err)
	}
	for i := range 20 {
		d := forge(NodeID(fmt.Sprintf("s%d", i)), 1, 5, big)
		d.Upto = 1
		if r, err := s.Apply(d); r != Staged {
			t.Fatalf("S19: %v %v", r, err)
		}
		checkUsage(t, s)
		if table.use.staged > limits.StageBytes {
			t.Fatalf("S19: %d bytes staged", table.use.staged)
		}
	}
	for _, o := range table.Owners() {
		table.Retire(o)
	}
	checkUsage(t, s)
	if table.use != (usage{}) {
		t.Fatalf("%+v", table.use)
	}
}

// TestNobodyGivesWayInVain covers S19: what has no room in any case costs nobody
// the streams of owners that may come back.
func TestNobodyGivesWayInVain(t *testing.T) {
	s := NewStore("b", 1, Limits{Entries: 100, Bytes: 1 << 20, Owners: 100, Tombstones: 3, TableBytes: 1000},
		new(testClock))
	table := s.Join("net")
	state := func(o NodeID, bytes int) (Result, error) {
		s.SetLiveness(o, Alive)
		return s.Apply(forge(o, 1, 5, Record{Kind: 200, Key: "k", Body: strings.Repeat("x", bytes), Version: 1}))
	}
	for _, o := range []NodeID{"lives", "away1", "away2"} {
		if r, err := state(o, 300); r != Applied {
			t.Fatal(r, err)
		}
	}
	s.SetLiveness("away1", Dead)
	s.SetLiveness("away2", Dead)
	if _, err := state("wants", 800); !errors.Is(err, ErrQuota) || len(table.Owners()) != 3 {
		t.Errorf("S19: %v, and there are %v", err, table.Owners())
	}
	if r, err := state("wants", 300); r != Applied || len(table.Owners()) != 3 {
		t.Errorf("S19: %v %v, and there are %v", r, err, table.Owners())
	}
	checkUsage(t, s)
}

// TestStagesAreNotLookedThroughEachTime covers S19: where incomplete deltas that
// nobody answers for fill their place, not each chunk looks through all of them.
func TestStagesAreNotLookedThroughEachTime(t *testing.T) {
	const n = 1000
	limits := DefaultLimits()
	limits.StageBytes = n * 420
	s := NewStore("b", 1, limits, new(testClock))
	table := s.Join("net")
	for i := range 4 * n {
		d := forge(NodeID(fmt.Sprintf("s%d", i)), 1, 5, Record{
			Kind: 200, Key: "k", Body: strings.Repeat("x", 400),
			Version: 1,
		})
		d.Upto = 1
		if r, err := s.Apply(d); r != Staged {
			t.Fatalf("S19: %v %v", r, err)
		}
	}
	if table.use.staged > limits.StageBytes || table.stageLooks == 0 || table.stageLooks > 40 {
		t.Fatalf("S19: %d bytes staged, looked for room %d times", table.use.staged, table.stageLooks)
	}
	checkUsage(t, s)
}
