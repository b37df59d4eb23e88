package main

import (
	"fmt"
	"os"
	"time"

	"meshd/gossip"
	"meshd/state"
	"meshd/test/sim"
)

// idle measures what a mesh costs in which nothing changes. A thousand tables
// of 100,000 endpoints do not fit a machine's memory, but tables that are
// equal are the same table: sixteen cores with whole tables stand for all, and
// what is sent to the k-th node goes to core k mod 16.
func idle(o options) {
	membership, err := membershipBytes()
	if err != nil {
		fmt.Fprintln(os.Stderr, "idle: memberlist's own traffic:", err)
	}
	for _, c := range []struct{ nodes, endpoints int }{{100, 100_000}, {1000, 100_000}} {
		if o.quick {
			c.endpoints = 10_000
		}
		if o.wants("nodes=%d endpoints=%d", c.nodes, c.endpoints) {
			idleOne(o, c.nodes, c.endpoints, membership)
		}
	}
}

const standIns = 16

func idleOne(o options, nodes, endpoints int, membership float64) {
	names := make([]state.NodeID, nodes)
	for i := range names {
		names[i] = state.NodeID(fmt.Sprintf("n%04d", i))
	}
	w := sim.New(sim.Options{
		Seed: o.seed, Nodes: standIns, Static: true, Core: gossip.CoreConfig{Peers: names},
		StandIn: true,
	})
	w.Start(time.Millisecond)
	fill(w, names, endpoints)
	w.Run(30 * time.Second)
	before, cpu, lasts := measure(w), cpuTime(), 2*time.Minute
	w.Run(lasts)
	used := cpuTime() - cpu
	per := lasts.Seconds() * standIns
	fmt.Printf("idle impl=meshd nodes=%d endpoints=%d bytes_per_s=%.0f memberlist_bytes_per_s=%.0f cpu_ms_per_s=%.3f "+
		"equal=%v link=%s\n",
		nodes, endpoints, float64(measure(w).bytes-before.bytes)/per, membership, float64(used)/float64(time.Millisecond)/per,
		w.Equal(), link)
}

// fill gives every core the streams of all owners.
func fill(w *sim.World, names []state.NodeID, endpoints int) {
	each := endpoints / len(names)
	for i, name := range names {
		src := state.NewStore(name, 1, state.DefaultLimits(), new(clock))
		var cs []state.Change
		for k := range each {
			cs = append(cs, sim.Endpoint(fmt.Sprintf("%s-t%d", name, k), fmt.Sprintf("s%d", k%97), i*each+k))
		}
		if _, err := src.Join("net").Commit(cs); err != nil {
			panic(err)
		}
		d := src.Table("net").Delta(state.Want{Owner: name}, 1<<30)
		for j, n := range w.Nodes() {
			if i == j {
				commit(n, cs)
			} else if _, err := n.Store().Apply(d); err != nil {
				panic(err)
			}
		}
	}
}

// clock is a Lamport clock.
type clock uint64

func (c *clock) Tick() uint64     { *c++; return uint64(*c) }
func (c *clock) Time() uint64     { return uint64(*c) }
func (c *clock) Witness(t uint64) { *c = max(*c, clock(t)) }
