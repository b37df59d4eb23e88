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
		if x, y := live.Definitions(), fresh.Definitions(); !reflect.DeepEqual(x.Names, y.Names) || !maps.Equal(x.Effective, y.Effective) {
			rt.Fatalf("%+v, at once %+v", x.Names, y.Names)
		}
	})
}
