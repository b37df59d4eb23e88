package registry

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meshd/state"
)

// attacked is a node with a task in network "net" whose peers say what they like.
type attacked struct {
	rt     *rapid.T
	store  *state.Store
	reg    *Snapshot
	inc    uint64
	told   map[state.NodeID]uint64 // incarnations of the liars' last statements
	yields bool
	left   bool
}

func (a *attacked) must(err error) {
	if err != nil {
		a.rt.Fatal(err)
	}
}

// start begins a life of the node, with what is on disk.
func (a *attacked) start() {
	a.inc++
	a.store, a.told, a.yields, a.left = state.NewStore("me", a.inc, state.DefaultLimits(), &ticks{}),
		map[state.NodeID]uint64{}, false, false
	_, err := a.store.Global().Commit(a.reg.globals())
	a.must(err)
}

// hear applies a stream of owner, in the next incarnation of it that was made up.
func (a *attacked) hear(owner state.NodeID, claims ...state.NetworkClaim) {
	a.told[owner]++
	inc := a.told[owner]
	if owner == "me" {
		inc += a.inc
	}
	liar := state.NewStore(owner, inc, state.DefaultLimits(), &ticks{})
	changes := []state.Change{{Kind: state.KindMember, Key: "net"}}
	for _, c := range claims {
		changes = append(changes, networkChange(c))
	}
	_, err := liar.Global().Commit(changes)
	a.must(err)
	_, err = a.store.Apply(liar.Global().Delta(state.Want{Owner: owner}, 1<<20))
	a.must(err)
}

// round is what the chores do.
func (a *attacked) round() {
	if a.yields || a.left {
		return
	}
	d := a.reg.draft()
	s := reconcile(d, &situation{defs: a.store.Definitions(), joined: []string{"net"}, synced: true}, testBounds(),
		time.Now())
	a.reg = d.done()
	_, err := a.store.Global().Commit(namedChanges(a.store, s.global))
	a.must(err)
}

// Whatever others state of a network, also in the name of the node itself, a node
// with tasks in it goes by the definition that it had: in life, while a namesake
// has its name, after a goodbye, and after a restart (V6).
func TestNobodyElseChangesARunningNetwork(t *testing.T) {
	mine := claimOf("net", "10.96.0.0/16", 7)
	claims := rapid.Custom(func(rt *rapid.T) state.NetworkClaim {
		c := claimOf("net", rapid.SampledFrom([]string{"10.1.0.0/16", "10.96.0.0/16", "10.96.0.0/20"}).Draw(rt, "pool"),
			rapid.SampledFrom([]uint64{0, 1, 7, 1 << 30}).Draw(rt, "birth"))
		c.Pinned = rapid.Bool().Draw(rt, "pinned")
		if rapid.IntRange(0, 2).Draw(rt, "removal") == 0 {
			c.Removed, c.Pinned, c.Lamport = true, false, rapid.SampledFrom([]uint64{1, 7, 1 << 30}).Draw(rt, "lamport")
		}
		return c
	})
	rapid.Check(t, func(rt *rapid.T) {
		l := newLocalNetwork()
		l.tasks.set("t", &savedTask{Service: "web"})
		l.counts.set("web", 1)
		if l.carried = newNetworkDef(mine.NetworkDef); rapid.Bool().Draw(rt, "made here") {
			l.def = l.carried
		}
		a := &attacked{rt: rt, reg: &Snapshot{networks: map[string]*localNetwork{"net": l}}, inc: 1}
		a.start()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			step := rapid.SampledFrom([]string{
				"lie", "lie", "forge", "yield", "take back", "goodbye", "restart", "round",
				"round",
			}).Draw(rt, "step")
			switch step {
			case "lie":
				a.hear(state.NodeID(fmt.Sprintf("liar%d", rapid.IntRange(0, 5).Draw(rt, "who"))), claims.Draw(rt, "claim"))
			case "forge":
				a.hear("me", claims.Draw(rt, "claim"))
			case "yield":
				a.yields = true
				a.store.SetYielded(true)
			case "take back":
				a.yields = false
				a.store.SetYielded(false)
				a.store.Reincarnate(a.store.Incarnation() + 1)
			case "goodbye":
				a.left = true
				a.store.Global().Leave()
			case "restart":
				a.start()
			case "round":
				a.round()
			}
			a.store.Publish(0)
			if def := a.store.Definitions().Effective["net"]; def != mine.NetworkDef {
				rt.Fatalf("after %q the network is %+v", step, def)
			}
			if got, ok := a.reg.networks["net"].states("net"); !ok || got != mine.NetworkDef {
				rt.Fatalf("after %q the node keeps %+v", step, got)
			}
		}
	})
}
