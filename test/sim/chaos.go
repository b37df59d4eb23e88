package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// Chaos is one random run: a mesh, a workload and a schedule of faults, all
// drawn from the seed.
type Chaos struct {
	// The run.

	Seed  uint64   // draws everything below
	World *World   // which the run steps
	Check *Checker // looks at the steps
	// Sabotage, if set, spoils the end of the run: the checker must notice.
	Sabotage func(w *World)

	// What came of it.

	Log   []string      // what was done, and when
	Equal time.Duration // from the end of the faults until all tables were equal

	// As what it was drawn.

	rng   *rand.Rand    // seeded by Seed
	lasts time.Duration // how long faults happen
	names []string      // of the services
	over  bool          // the schedule has ended: what was to happen later does not
}

// Bound is how long after the last fault all must be equal again.
const Bound = 15 * time.Second

// NewChaos draws a run.
func NewChaos(seed uint64) *Chaos {
	c := &Chaos{Seed: seed, Check: NewChecker(), rng: rand.New(rand.NewPCG(seed, 1))}
	l := LAN()
	if c.rng.IntN(3) == 0 {
		l = Link{Base: 5 * time.Millisecond, Jitter: 5 * time.Millisecond}
	}
	c.spoil(&l)
	c.World = New(Options{
		Seed: seed, Nodes: 2 + c.rng.IntN(16), Link: l, Pool: netip.MustParsePrefix(c.pool()),
		Oracle: Oracle{FalseDeaths: float64(c.rng.IntN(3))},
		OnStep: c.Check.Step, Limits: c.limits(),
	})
	c.Check.Watch(c.World)
	for i := range 2 + c.rng.IntN(12) {
		c.names = append(c.names, fmt.Sprintf("svc%d", i))
	}
	c.lasts = time.Duration(5+c.rng.IntN(40)) * time.Second
	return c
}

// pool is sometimes so small that services fight over addresses.
func (c *Chaos) pool() string {
	return []string{"10.96.0.0/16", "10.96.0.0/27", "10.96.0.0/28"}[c.rng.IntN(3)]
}

// limits sometimes keep so few tombstones that replicas need snapshots.
func (c *Chaos) limits() state.Limits {
	l := state.DefaultLimits()
	if c.rng.IntN(2) == 0 {
		l.Tombstones = 2 + c.rng.IntN(6)
	}
	return l
}

func (c *Chaos) spoil(l *Link) {
	if c.rng.IntN(2) == 0 {
		l.Loss = []float64{0.01, 0.05, 0.25}[c.rng.IntN(3)]
	}
	if c.rng.IntN(3) == 0 {
		l.Dup = 0.1
	}
	if c.rng.IntN(3) == 0 {
		l.Reorder, l.Hold = 0.1, 50*time.Millisecond
	}
}

func (c *Chaos) log(format string, args ...any) {
	c.Log = append(c.Log, fmt.Sprintf("%10v ", c.World.now)+fmt.Sprintf(format, args...))
}

// Run runs the schedule, heals everything and checks. It returns the
// violations; none is success.
func (c *Chaos) Run() []string {
	w := c.World
	c.log("%d nodes, link %+v, for %v", len(w.nodes), w.opt.Link, c.lasts)
	w.Start(time.Duration(c.rng.IntN(50)) * time.Millisecond)
	for i := range w.nodes {
		w.At(0, func() { c.work(i) })
	}
	c.intrude()
	end := w.now + c.lasts
	for w.now < end && len(c.Check.Violations) == 0 {
		c.fault(c.pick())
		w.Run(time.Duration(c.rng.ExpFloat64() * float64(800*time.Millisecond)))
	}
	c.heal()
	took, ok := w.Until(c.whole, 20*time.Millisecond, Bound)
	c.Equal = took
	c.log("equal after %v: %v", took, ok)
	w.Run(8 * time.Second) // until the slowest death is known
	c.Check.Final()
	if len(c.Check.Violations) == 0 {
		c.rest()
	}
	return c.Check.Violations
}

// whole reports whether all participants of each network agree.
func (c *Chaos) whole() bool {
	for _, name := range c.Check.networks() {
		if c.Check.intruded {
			if c.Check.Difference(name) != "" {
				return false
			}
			continue
		}
		var first *Node
		for _, n := range c.World.nodes {
			if !n.up || n.Table(name) == nil {
				continue
			}
			if first == nil {
				first = n
			} else if n.Table(name).Checksum() != first.Table(name).Checksum() {
				return false
			}
		}
	}
	return true
}

// rest: with nothing to say, nothing is said but O(1) hashes, and queues are empty (G4).
func (c *Chaos) rest() {
	w := c.World
	w.Run(30 * time.Second) // claims in grace settle
	before := make([]gossip.Stats, len(w.nodes))
	for i, n := range w.nodes {
		if n.up {
			before[i] = n.Core.Stats
		}
	}
	w.Run(20 * time.Second)
	for i, n := range w.nodes {
		if !n.up {
			continue
		}
		s := n.Core.Stats
		if d := s.DeltasOut - before[i].DeltasOut; d > 9 { // a clock that jumped may just forget tombstones (S6)
			c.Check.fail("G4: %s sent %d deltas at rest", n.ID, d)
		}
		if rate := float64(s.BytesOut-before[i].BytesOut) / 20; rate > 600 {
			c.Check.fail("G4: %s sent %.0f B/s at rest", n.ID, rate)
		}
		if p, q := n.Core.Queued(); p+q > 0 {
			c.Check.fail("G7: %s has %d pushes and %d pulls queued at rest", n.ID, p, q)
		}
	}
}

// work keeps one node changing what it states until the schedule is over.
func (c *Chaos) work(i int) {
	w := c.World
	if w.now > c.lasts {
		return
	}
	n := w.nodes[i]
	if n.up && !n.paused {
		c.commit(n, w.opt.Network, 1+c.rng.IntN(3))
		if n.Table("blue") != nil {
			c.commit(n, "blue", 1)
		}
	}
	c.Check.Orphan(c.names)
	c.later(time.Duration(c.rng.ExpFloat64()*float64(700*time.Millisecond)), func() { c.work(i) })
}

// commit states, changes or withdraws some pairs of tasks, in one step.
func (c *Chaos) commit(n *Node, network string, pairs int) {
	var cs []state.Change
	used := map[string]bool{}
	for range pairs {
		id := TaskID(n, c.rng.IntN(8))
		if used[id] {
			continue
		}
		used[id] = true
		if c.rng.IntN(3) == 0 {
			cs = append(cs, Remove(id+"-a"), Remove(id+"-b"))
			continue
		}
		serial, svc := c.rng.IntN(60000), c.names[c.rng.IntN(len(c.names))]
		a, b := Endpoint(id+"-a", svc, serial), Endpoint(id+"-b", svc, serial)
		cs = append(cs, a, b)
	}
	n.must(n.CommitIn(network, cs...))
}

// pick draws a node.
func (c *Chaos) pick() *Node { return c.World.nodes[c.rng.IntN(len(c.World.nodes))] }

func (c *Chaos) soon(most time.Duration) time.Duration {
	return time.Duration(c.rng.Float64() * c.rng.Float64() * float64(most))
}

// later does something after d, unless the schedule is over by then.
func (c *Chaos) later(d time.Duration, f func()) {
	c.World.After(d, func() {
		if !c.over {
			f()
		}
	})
}

// heal mends everything; nodes that are down stay down.
func (c *Chaos) heal() {
	w := c.World
	w.Heal()
	l := w.opt.Link
	l.Loss = min(l.Loss, 0.01)
	w.SetLinks(l)
	for _, n := range w.nodes {
		n.Resume()
	}
	c.over = true
	w.oracle.cfg.FalseDeaths = 0
	if c.Sabotage != nil {
		c.Sabotage(w)
	}
	c.log("all healed")
}

// String tells the story of the run.
func (c *Chaos) String() string { return strings.Join(c.Log, "\n") }
