package mesh

import (
	"testing"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// After another node had its name, a node states its networks and its own
// address again, though nothing that they depend on has changed in between (S7, V6).
func TestNodeThatHasItsNameAgainStatesItsNetworks(t *testing.T) {
	n, ctx := startNode(t)
	if _, err := n.CreateNetwork(ctx, control.CreateNetwork{Name: "net", Subnet: "10.96.0.0/16"}); err != nil {
		t.Fatal(err)
	}
	k := newChores(n, identity{})
	for range 3 { // what it states is settled
		k.networks(ctx)
	}
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		s := c.Store()
		namesake := state.NewStore(s.Self(), s.Incarnation()+5, state.DefaultLimits(), &ticks{})
		_, err := namesake.Global().Commit([]state.Change{{
			Kind: state.KindNode,
			Body: string(state.AppendNode(nil, state.NodeInfo{Boot: 7})),
		}})
		n.check(err)
		s.SetYielded(true)
		if r, err := s.Apply(namesake.Global().Delta(state.Want{Owner: s.Self()}, 1<<20)); r != state.Applied || err != nil {
			t.Error(r, err)
		}
		s.SetYielded(false)
		s.Reincarnate(s.Incarnation() + 10)
		s.Publish(0)
	})
	if err != nil {
		t.Fatal(err)
	}
	k.networks(ctx)
	err = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		g := c.Store().Global()
		if own := g.Own(state.KindNetwork); len(own) != 1 || own[0].Key() != "net" {
			t.Errorf("of networks the node states %v", own)
		}
		if info, ok := c.Store().Node(c.Config().Self); !ok || info.Boot != n.host.Boot() {
			t.Errorf("of itself it says %+v", info)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

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
	l.tasks["t"], l.counts["web"] = savedTask{Service: "web"}, 1
	d := (&registry{networks: map[string]*localNetwork{"net": l}}).draft()
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
