package gossip

import (
	"slices"
	"testing"
	"time"

	"meshd/state"
)

// A node that has its name again takes part in its networks, and in those only,
// whatever the other said that had its name (S7).
func TestNodeThatHasItsNameAgainTakesPart(t *testing.T) {
	for _, tt := range []struct {
		name  string
		other []string // networks in which the other says that the node takes part
		left  bool     // this node says goodbye meanwhile
		want  []string
	}{
		{name: "the other takes part in nothing", want: []string{"net"}},
		{name: "in another network", other: []string{"other"}, want: []string{"net"}},
		{name: "in the same and another", other: []string{"net", "other"}, want: []string{"net"}},
		{name: "this one has left", other: []string{"other"}, left: true, want: []string{"other"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := testCore(t, "a", "b")
			a.Tick(2 * time.Second)
			other := state.NewStore("a", a.store.Incarnation()+5, state.DefaultLimits(), new(counter))
			changes := []state.Change{{Kind: state.KindNode, Body: string(state.AppendNode(nil, state.NodeInfo{Boot: 7}))}}
			for _, n := range tt.other {
				changes = append(changes, state.Change{Kind: state.KindMember, Key: n})
			}
			if _, err := other.Global().Commit(changes); err != nil {
				t.Fatal(err)
			}
			a.duplicates.other, a.yielded = duplicate{proven: true, lastProof: 2 * time.Second, boot: 7}, true
			a.store.SetYielded(true)
			if r, err := a.store.Apply(other.Global().Delta(state.Want{Owner: "a"}, 1<<20)); r != state.Applied || err != nil {
				t.Fatal(r, err)
			}
			if tt.left {
				a.Leave(3 * time.Second)
			}
			for now := 3 * time.Second; a.Yielded() && now < time.Minute; now += 100 * time.Millisecond {
				a.Tick(now)
				a.Drain()
			}
			if a.Yielded() {
				t.Fatal("the name is not taken back")
			}
			var got []string
			for _, e := range a.store.Global().Own(state.KindMember) {
				got = append(got, e.Key())
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("the node says that it takes part in %v, not %v", got, tt.want)
			}
			if at, ok := a.store.Global().Head("a"); !tt.left && (!ok || at.Inc != a.store.Incarnation()) {
				t.Errorf("its stream is at %+v, and on disk is incarnation %d", at, a.store.Incarnation())
			}
		})
	}
}
