package sim

import (
	"math/rand/v2"
	"time"

	"meshd/gossip"
	"meshd/gossip/gossiptest"
)

// intruder is a peer with the key that means harm: throughout the faults of a
// run it sends what no honest node sends, as itself and as made-up others, to
// random nodes. When the faults end it falls silent: nothing but what it said of
// owners of its own may last. It chooses by a source of its own, so that a run is
// what it would be without it.
type intruder struct {
	c      *Chaos
	rng    *rand.Rand
	source *gossiptest.Source
	world  gossiptest.World
}

// intrude adds an intruder to one run in two.
func (c *Chaos) intrude() {
	rng := rand.New(rand.NewPCG(c.Seed, 7))
	if rng.IntN(2) == 0 {
		return
	}
	i := &intruder{
		c: c, rng: rng, source: gossiptest.Seeded(c.Seed),
		world: gossiptest.World{
			Self: "intruder", Peers: []string{"made-up"},
			Networks: []string{c.World.opt.Network, "blue"},
		},
	}
	c.log("an intruder")
	c.Check.intruded = true
	i.send()
}

func (i *intruder) send() {
	w := i.c.World
	n := w.nodes[i.rng.IntN(len(w.nodes))]
	i.world.Self = string(n.ID) // of its own stream a node is never told anything, whoever asks
	p := gossiptest.Packet(i.source, i.world)
	if n.up && !n.paused {
		n.Do(func(now time.Duration, core *gossip.Core) { core.Receive(now, p) })
	}
	i.c.later(time.Duration(i.rng.ExpFloat64()*float64(50*time.Millisecond)), i.send)
}
