package sim

import (
	"math"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// Verification is a mesh in which deaths are reported, true ones and others, and what
// was counted of it: the packets to the suspects, and who hides them when (G11). The
// membership is a script: all other nodes are told within 0.8 s, as late after the last
// packet as memberlist's lan times have it. The suspects are chosen one after the
// other.
type Verification struct {
	// The mesh.

	World *World // all know each other; lan times
	// Tells, if set, says who is told of a death that did not happen; else everybody.
	Tells func(observer, suspect *Node) bool

	// The round at hand.

	suspect *Node         // whose death is reported; nil: between rounds
	since   time.Duration // when it spoke last, or when the first report came
	packets int           // to it

	// All rounds.

	Rounds  int             // how many deaths were reported
	Packets int             // to suspects in all rounds, from the first report until 5 s after the last
	Most    int             // of them in the worst round
	Noticed []time.Duration // from each death until each other node hid the dead
	Hidden  int             // how often a node hid one that lived
}

// reportsWithin is how long reports of one death take to reach all nodes.
const reportsWithin = 800 * time.Millisecond

// NewVerification returns a mesh whose links are like l.
func NewVerification(seed uint64, nodes int, l Link) *Verification {
	v := &Verification{}
	core := gossip.CoreConfig{Silence: 1800 * time.Millisecond, Suspicion: 600 * time.Millisecond}
	v.World = New(Options{Seed: seed, Nodes: nodes, Script: true, Core: core, OnEvent: v.happened})
	v.World.Introduce()
	v.World.Run(5 * time.Second)
	v.World.SetLinks(l)
	for _, n := range v.World.nodes {
		n.OnSend = func(s *gossip.Send) bool {
			if v.suspect != nil && s.To == v.suspect.ID {
				v.packets++
			}
			return true
		}
	}
	return v
}

func (v *Verification) happened(n *Node, e gossip.Event) {
	switch {
	case e.Kind != gossip.EventDead:
	case v.suspect == nil || e.Node != v.suspect.ID || v.suspect.Up():
		v.Hidden++
	default:
		v.Noticed = append(v.Noticed, v.World.Now()-v.since)
	}
}

// begin starts a round, about another node than the last ones.
func (v *Verification) begin() *Node {
	v.suspect = v.World.Node(v.Rounds * 7 % len(v.World.nodes))
	v.since, v.packets = v.World.Now(), 0
	v.Rounds++
	return v.suspect
}

// end ends a round, some time after the last report.
func (v *Verification) end() {
	v.World.Run(5 * time.Second)
	v.Packets += v.packets
	v.Most = max(v.Most, v.packets)
	v.suspect = nil
}

// report tells the other nodes that the suspect is dead, from a time on.
func (v *Verification) report(from time.Duration, listAgain bool) {
	w := v.World
	for _, n := range w.nodes {
		if n == v.suspect || listAgain && v.Tells != nil && !v.Tells(n, v.suspect) {
			continue
		}
		at := from + time.Duration(w.rng.Int64N(int64(reportsWithin)))
		w.Report(n, v.suspect, at)
		if listAgain { // its refutation comes by the membership as well
			w.List(n, v.suspect, at+w.oracle.between(300*time.Millisecond, 1500*time.Millisecond))
		}
	}
	w.Run(from + reportsWithin)
}

// Deaths ends nodes one after the other, and starts them again.
func (v *Verification) Deaths(times int) {
	w := v.World
	for range times {
		n := v.begin()
		n.Crash(true)
		// A probe fails, and the suspicion ends.
		v.report(300*time.Millisecond+time.Duration(math.Log10(float64(len(w.nodes)))*float64(600*time.Millisecond)), false)
		v.end()
		n.Start()
		for _, o := range w.nodes {
			if o != n {
				w.List(o, n, 0)
				w.List(n, o, 0)
			}
		}
		w.Run(2 * time.Second)
	}
}

// FalseReports reports deaths that did not happen.
func (v *Verification) FalseReports(times int) {
	for range times {
		v.begin()
		v.report(0, true)
		v.end()
	}
}

// Stalls lets nodes stand still for a while, and reports their deaths meanwhile: the
// first after from, sooner than memberlist could.
func (v *Verification) Stalls(times int, stall, from time.Duration) {
	for range times {
		n := v.begin()
		n.Pause()
		v.World.After(stall, n.Resume)
		v.report(from, true)
		v.end()
	}
}

// Missed returns how many deaths were not noticed by how many nodes.
func (v *Verification) Missed() int { return v.Rounds*(len(v.World.nodes)-1) - len(v.Noticed) }

// NotAlive returns how many pairs of running nodes there are of which one does not take
// the other for alive.
func (v *Verification) NotAlive() (pairs int) {
	for _, n := range v.World.nodes {
		for _, o := range v.World.nodes {
			if n != o && n.up && o.up && n.Store().Liveness(o.ID) != state.Alive {
				pairs++
			}
		}
	}
	return pairs
}

// Average returns the average of the times until a death was noticed.
func (v *Verification) Average() time.Duration {
	var sum time.Duration
	for _, t := range v.Noticed {
		sum += t
	}
	return sum / time.Duration(max(len(v.Noticed), 1))
}

// Quantile returns the q-quantile of them.
func (v *Verification) Quantile(q float64) time.Duration {
	if len(v.Noticed) == 0 {
		return 0
	}
	slices.Sort(v.Noticed)
	return v.Noticed[min(int(q*float64(len(v.Noticed))), len(v.Noticed)-1)]
}
