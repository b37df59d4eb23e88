package registry

import (
	"testing"
	"time"

	"meshd/state"
)

// What was stated in this node's name while it stated nothing itself vouches for
// no definition: of two that others state, none is taken over for it (V6).
func TestNamesakeVouchesForNoDefinition(t *testing.T) {
	s := state.NewStore("me", 1, state.DefaultLimits(), &ticks{})
	hear := func(o state.NodeID, inc uint64, c state.NetworkClaim) {
		other := state.NewStore(o, inc, state.DefaultLimits(), &ticks{})
		if _, err := other.Global().Commit([]state.Change{networkChange(c)}); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Apply(other.Global().Delta(state.Want{Owner: o}, 1<<20)); r != state.Applied || err != nil {
			t.Fatal(r, err)
		}
	}
	s.SetYielded(true)
	hear("me", 5, claimOf("net", "10.1.0.0/16", 1))
	hear("b", 1, claimOf("net", "10.96.0.0/16", 7))
	hear("c", 1, claimOf("net", "10.96.0.0/16", 7))
	s.SetYielded(false)
	s.Reincarnate(6)
	s.Publish(0)
	l := newLocalNetwork()
	l.tasks.set("t", &savedTask{Service: "web"})
	l.counts.set("web", 1)
	d := (&Snapshot{networks: map[string]*localNetwork{"net": l}}).draft()
	at := &situation{defs: s.Definitions(), joined: []string{"net"}, synced: true}
	reconcile(d, at, testBounds(), time.Now())
	if c := d.networks["net"].carried; c != nil {
		t.Errorf("it takes over %+v", c)
	}
	s.SetAnswers("b", true)
	s.Publish(0)
	at.defs = s.Definitions()
	reconcile(d, at, testBounds(), time.Now())
	if c := d.networks["net"].carried; c == nil || c.Birth != 7 {
		t.Errorf("of one that answers it takes over %+v", c)
	}
}
