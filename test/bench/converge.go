package main

import (
	"fmt"
	"slices"
	"time"

	"meshd/test/sim"
)

// watch measures when a change becomes visible at nodes. One change is under
// way per owner.
type watch struct {
	w     *sim.World
	want  []map[int]pending // per node: owner → what it waits for
	times []time.Duration
	left  int
	late  int // not visible in time
}

type pending struct {
	version uint64
	since   time.Duration
}

func newWatch(w *sim.World) *watch {
	v := &watch{w: w, want: make([]map[int]pending, len(w.Nodes()))}
	for i := range v.want {
		v.want[i] = map[int]pending{}
	}
	return v
}

func (v *watch) step(n *sim.Node, i int) {
	for owner, p := range v.want[i] {
		if h, ok := n.Table("net").Head(v.w.Node(owner).ID); ok && h.Version >= p.version {
			v.times = append(v.times, v.w.Now()-p.since)
			v.left--
			delete(v.want[i], owner)
		}
	}
}

// traffic sums what the nodes sent and received.
type traffic struct{ bytes, deltas, pushes uint64 }

func measure(w *sim.World) (t traffic) {
	for _, n := range w.Nodes() {
		if n.Up() {
			t.bytes += n.Bytes
			t.deltas += n.Core.Stats.DeltasIn
			t.pushes += n.Core.Stats.Pushes
		}
	}
	return t
}

func converge(o options) {
	for _, nodes := range []int{10, 25, 100, 1000} {
		for _, loss := range []float64{0, 0.05, 0.25} {
			if o.wants("nodes=%d loss=%g", nodes, loss) {
				convergeOne(o, nodes, loss)
			}
		}
	}
}

// convergeOne makes changes one after the other, far enough apart that each
// is over when the next begins.
func convergeOne(o options, nodes int, loss float64) {
	changes := 200
	if o.quick && nodes > 100 {
		changes = 40
	}
	l := sim.LAN()
	var v *watch
	w := sim.New(sim.Options{Seed: o.seed, Nodes: nodes, Link: l, Static: nodes > 100, OnStep: func(n *sim.Node) {
		if v != nil && v.left > 0 {
			v.step(n, n.Number())
		}
	}})
	w.Start(time.Millisecond)
	w.Run(time.Minute) // the membership is complete
	l.Loss = loss
	w.SetLinks(l)
	idle := idleRate(w)
	v = newWatch(w)
	before, begin := measure(w), w.Now()
	for k := range changes {
		v.change(w.Rand().IntN(nodes), k)
		_, ok := w.Until(func() bool { return v.left == 0 }, 100*time.Millisecond, 30*time.Second)
		if !ok {
			v.late += v.left
		}
		w.Run(time.Duration(w.Rand().IntN(400)) * time.Millisecond)
	}
	after := measure(w)
	slices.Sort(v.times)
	per := float64(changes) * float64(nodes)
	bytes := float64(after.bytes-before.bytes) - idle*(w.Now()-begin).Seconds()*float64(nodes)
	fmt.Printf("converge impl=meshd nodes=%d loss=%g p50_ms=%s p99_ms=%s max_ms=%s copies=%.2f bytes_per_change=%.0f "+
		"changes=%d late=%d link=%s\n",
		nodes, loss, ms(quantile(v.times, .5)), ms(quantile(v.times, .99)), ms(quantile(v.times, 1)),
		float64(after.deltas-before.deltas)/per, bytes/per, changes, v.late, link)
}

// idleRate returns the bytes per second and node when nothing changes.
func idleRate(w *sim.World) float64 {
	w.Run(10 * time.Second)
	before := measure(w)
	w.Run(20 * time.Second)
	return float64(measure(w).bytes-before.bytes) / 20 / float64(len(w.Nodes()))
}

// change states something on a node and waits for it on all others.
func (v *watch) change(owner, k int) {
	n := v.w.Node(owner)
	h, _ := n.Table("net").Head(n.ID)
	for i := range v.want {
		if i != owner {
			v.want[i][owner] = pending{version: h.Version + 1, since: v.w.Now()}
			v.left++
		}
	}
	if err := n.Commit(sim.Endpoint(sim.TaskID(n, 0), "web", k+1)); err != nil {
		panic(err)
	}
}
