package sim

import (
	"time"

	"meshd/gossip"
	"meshd/state"
)

// This file plays the membership by hand, for Options.Script: who knows whom, and
// who is told of a death, true or not.

// Introduce starts every node and makes all know each other, as after a long time:
// each lists all others, holds their streams of the global scope, and was
// answered by them.
func (w *World) Introduce() {
	for _, n := range w.nodes {
		n.Start()
	}
	deltas := make([]*state.Delta, len(w.nodes))
	for i, n := range w.nodes {
		deltas[i] = n.Table("").Delta(state.Want{Owner: n.ID}, 1<<20)
	}
	for _, n := range w.nodes {
		n.Do(func(now time.Duration, c *gossip.Core) {
			for j, o := range w.nodes {
				if o != n {
					_, err := c.Store().Apply(deltas[j])
					n.must(err)
					c.MemberAlive(now, o.ID, o.Addr)
					c.MemberReached(now, o.ID, o.Addr)
				}
			}
		})
	}
}

// Report tells an observer after a time that a node is dead, true or not.
func (w *World) Report(observer, suspect *Node, after time.Duration) {
	w.After(after, func() {
		w.oracle.tell(pair{observer.index, suspect.index}, func(now time.Duration, c *gossip.Core) {
			c.MemberDead(now, suspect.ID)
		})
	})
}

// List tells an observer after a time that a node is there.
func (w *World) List(observer, node *Node, after time.Duration) {
	w.After(after, func() {
		w.oracle.tell(pair{observer.index, node.index}, func(now time.Duration, c *gossip.Core) {
			c.MemberAlive(now, node.ID, node.Addr)
		})
	})
}
