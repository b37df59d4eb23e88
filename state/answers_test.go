package state

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Names cost nothing to make up: what those state that answer this node goes
// before what any number of others are said to state (V6).
func TestMadeUpOwnersDecideNothing(t *testing.T) {
	names := []NodeID{"fresh"}
	for i := range 5 {
		names = append(names, NodeID(fmt.Sprintf("host%d", i)))
	}
	for i := range 20 {
		names = append(names, NodeID(fmt.Sprintf("liar%02d", i)))
	}
	m := newDefMesh(names...)
	for _, o := range names[1:] {
		c := NetworkClaim{NetworkDef: def4("net", "10.96.0.0/16", 9)}
		if o[0] == 'l' {
			c.NetworkDef = def4("net", "10.1.0.0/16", 0)
		}
		m.state(t, o, networkChange(c))
	}
	s := m["fresh"]
	effective := func() string { s.Publish(0); return s.Definitions().Effective["net"].Subnet4.String() }
	if got := effective(); got != "10.1.0.0/16" {
		t.Errorf("of nobody who answers, most say 10.1.0.0/16, not %s", got)
	}
	s.SetAnswers("host3", true)
	if got := effective(); got != "10.96.0.0/16" {
		t.Errorf("the one host that answers is outvoted: %s", got)
	}
	if d := s.Definitions().Names["net"].Stated[0]; d.Answering != 1 || d.Carriers != 5 {
		t.Errorf("one of five answers, not %+v", d)
	}
	s.Forget("host3")
	if got := effective(); got != "10.1.0.0/16" {
		t.Errorf("a host that was forgotten decides: %s", got)
	}
}

// What a namesake states in this node's stream is no statement of this node: it
// counts as that of an owner that does not answer (V6, S7).
func TestNamesakeDoesNotSpeakForThisNode(t *testing.T) {
	theirs, true4 := def4("net", "10.1.0.0/16", 0), def4("net", "10.96.0.0/16", 9)
	for _, tt := range []struct {
		name      string
		namesake  NetworkDef
		own       *NetworkDef // what the node states by its own hand
		others    []NetworkDef
		answers   bool // the others do
		effective NetworkDef
		stated    string // of the one in effect: those that state it, of which answer
	}{
		{"other pools", theirs, nil, []NetworkDef{true4, true4}, false, true4, "2 0"},
		{"other pools, others answer", theirs, nil, []NetworkDef{true4}, true, true4, "1 1"},
		{"the same pools, another birth", def4("net", "10.96.0.0/16", 1), nil, []NetworkDef{true4, true4}, false, true4, "2 0"},
		{"nobody else states it", theirs, nil, nil, false, theirs, "1 0"},
		{"the node has its own", theirs, &true4, nil, false, true4, "1 1"},
		{"what the node has, too", true4, &true4, []NetworkDef{theirs, theirs}, false, true4, "1 1"},
	} {
		s, namesake := NewStore("me", 1, DefaultLimits(), new(testClock)), NewStore("me", 5, DefaultLimits(), new(testClock))
		commit := func(s *Store, d NetworkDef) {
			if _, err := s.Global().Commit([]Change{networkChange(NetworkClaim{NetworkDef: d})}); err != nil {
				t.Fatal(err)
			}
		}
		if tt.own != nil {
			commit(s, *tt.own)
		}
		s.SetYielded(true)
		commit(namesake, tt.namesake)
		pull(t, namesake.Global(), s.Global(), "me", 1<<20)
		for i, d := range tt.others {
			o := NewStore(NodeID(fmt.Sprintf("n%d", i)), 1, DefaultLimits(), new(testClock))
			commit(o, d)
			pull(t, o.Global(), s.Global(), o.Self(), 1<<20)
			s.SetAnswers(o.Self(), tt.answers)
		}
		s.SetYielded(false)
		s.Reincarnate(6)
		s.Publish(0)
		d := s.Definitions().Names["net"]
		if got := fmt.Sprint(d.Stated[0].Carriers, d.Stated[0].Answering); d.Def != tt.effective || got != tt.stated {
			t.Errorf("%s: %+v is in effect, stated by %s; want %+v, %s", tt.name, d.Def, got, tt.effective, tt.stated)
		}
		if tt.own == nil {
			continue
		}
		if _, err := s.Global().Commit([]Change{{Kind: KindNetwork, Key: "net", Delete: true}}); err != nil {
			t.Fatal(err)
		}
		s.Publish(0)
		for _, e := range statedOf(s, "net") {
			if e.Answering != 0 {
				t.Errorf("%s: of what the node states no more %+v is left", tt.name, e)
			}
		}
	}
}

func statedOf(s *Store, name string) []Stated {
	if d := s.Definitions().Names[name]; d != nil {
		return d.Stated
	}
	return nil
}

// In whatever order nodes state and answer, the same comes of it.
func TestDefinitionsFollowWhoAnswers(t *testing.T) {
	owners := []NodeID{"a", "b", "c", "d", "e"}
	claims := claimGen([]string{"n", "m"}, []string{"10.1.0.0/16", "10.2.0.0/16"})
	rapid.Check(t, func(rt *rapid.T) {
		live, fresh := NewStore("a", 1, DefaultLimits(), new(testClock)), NewStore("a", 1, DefaultLimits(), new(testClock))
		said, answer := map[NodeID]NetworkClaim{}, map[NodeID]bool{}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			o := rapid.SampledFrom(owners).Draw(rt, "owner")
			if rapid.Bool().Draw(rt, "states") {
				if c, ok := said[o]; ok {
					live.definer.set(c.Name, o, nil)
				}
				c := claims.Draw(rt, "claim")
				live.definer.set(c.Name, o, &c)
				said[o] = c
			} else {
				answer[o] = rapid.Bool().Draw(rt, "answers")
				live.SetAnswers(o, answer[o])
			}
			if rapid.Bool().Draw(rt, "publish") {
				live.Publish(0)
			}
		}
		for _, o := range slices.Sorted(maps.Keys(said)) {
			c := said[o]
			fresh.definer.set(c.Name, o, &c)
		}
		for o, yes := range answer {
			fresh.SetAnswers(o, yes)
		}
		live.Publish(0)
		fresh.Publish(0)
		if x, y := live.Definitions(), fresh.Definitions(); !reflect.DeepEqual(x.Names, y.Names) ||
			!maps.Equal(x.Effective, y.Effective) {
			rt.Fatalf("%+v, at once %+v", x.Names, y.Names)
		}
	})
}
