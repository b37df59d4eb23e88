package main

import (
	"fmt"
	"time"

	"meshd/state"
	"meshd/test/sim"
)

// knownWorld starts a world of nodes that all know each other.
func knownWorld(o options, nodes int, opt sim.Options) *sim.World {
	opt.Seed, opt.Nodes = o.seed, nodes
	w := sim.New(opt)
	w.Start(time.Millisecond)
	w.Run(time.Minute)
	return w
}

// spread states entries on the nodes, each node's in commits of batch.
func spread(w *sim.World, entries, batch int) {
	nodes := len(w.Nodes())
	for i, n := range w.Nodes() {
		var cs []state.Change
		for k := i; k < entries; k += nodes {
			cs = append(cs, sim.Endpoint(sim.TaskID(n, k/nodes+1), fmt.Sprintf("s%d", k%97), k))
			if len(cs) == batch {
				commit(n, cs)
				cs = nil
			}
		}
		if len(cs) > 0 {
			commit(n, cs)
		}
	}
}

func commit(n *sim.Node, cs []state.Change) {
	if err := n.Commit(cs...); err != nil {
		panic(err)
	}
}

func burst(o options) {
	for _, c := range []struct{ nodes, entries int }{{25, 1000}, {10, 5000}, {100, 100_000}} {
		if o.quick && c.entries > 5000 {
			c.entries = 20_000
		}
		for _, batch := range []int{1, 100} {
			if o.wants("nodes=%d entries=%d batch=%d", c.nodes, c.entries, batch) {
				burstOne(o, c.nodes, c.entries, batch)
			}
		}
	}
}

// burstOne states all entries at one moment: one by one (batch=1), and in
// batches as a source that starts does.
func burstOne(o options, nodes, entries, batch int) {
	w := knownWorld(o, nodes, sim.Options{})
	before := measure(w)
	spread(w, entries, batch)
	d, ok := w.Until(w.Equal, 5*time.Millisecond, 2*time.Minute)
	fmt.Printf("burst impl=meshd nodes=%d entries=%d batch=%d equal_ms=%s bytes=%d equal=%v link=%s\n",
		nodes, entries, batch, ms(d), (measure(w).bytes-before.bytes)/uint64(nodes), ok, link)
}

// cold starts all nodes at one moment, each with its endpoints on disk.
func cold(o options) {
	for _, c := range []struct{ nodes, each int }{{25, 100}, {100, 100}} {
		if !o.wants("nodes=%d", c.nodes) {
			continue
		}
		w := knownWorld(o, c.nodes, sim.Options{})
		spread(w, c.nodes*c.each, 100)
		w.Until(w.Equal, 10*time.Millisecond, time.Minute)
		for _, n := range w.Nodes() {
			n.Crash(true)
		}
		w.Run(time.Minute)
		w.Start(0)
		before := uint64(0)
		d, ok := w.Until(w.Equal, 5*time.Millisecond, time.Minute)
		fmt.Printf("cold impl=meshd nodes=%d entries=%d equal_ms=%s bytes=%d equal=%v link=%s\n",
			c.nodes, c.nodes*c.each, ms(d), (measure(w).bytes-before)/uint64(c.nodes), ok, link)
	}
}

func heal(o options) {
	nodes, changes := 100, 10_000
	if o.quick {
		changes = 2000
	}
	for _, split := range []time.Duration{10 * time.Second, 5 * time.Minute, time.Hour} {
		if !o.wants("split_s=%.0f", split.Seconds()) {
			continue
		}
		w := knownWorld(o, nodes, sim.Options{})
		spread(w, nodes*20, 20)
		w.Run(10 * time.Second)
		w.Partition(func(i int) int { return i % 2 })
		for k := range changes {
			w.After(split*time.Duration(k)/time.Duration(changes+1), func() {
				n := w.Node(k % nodes)
				commit(n, []state.Change{sim.Endpoint(sim.TaskID(n, k/nodes%120+1), fmt.Sprintf("s%d", k%97), k+7)})
			})
		}
		w.Run(split)
		w.Heal()
		before := measure(w)
		d, ok := w.Until(w.Equal, 10*time.Millisecond, 2*time.Minute)
		fmt.Printf("heal impl=meshd nodes=%d split_s=%.0f changes=%d equal_ms=%s bytes=%d equal=%v link=%s\n",
			nodes, split.Seconds(), changes, ms(d), (measure(w).bytes-before.bytes)/uint64(nodes), ok, link)
	}
}

// join adds a node without a disk to a mesh with many endpoints.
func join(o options) {
	for _, entries := range []int{10_000, 100_000} {
		if !o.wants("endpoints=%d", entries) || o.quick && entries > 10_000 {
			continue
		}
		const nodes = 10
		w := knownWorld(o, nodes, sim.Options{})
		w.Node(0).Crash(false)
		w.Run(time.Minute)
		for i, n := range w.Nodes()[1:] {
			for k := 0; k < entries/(nodes-1); k += 100 {
				var cs []state.Change
				for j := range 100 {
					cs = append(cs, sim.Endpoint(sim.TaskID(n, k+j), fmt.Sprintf("s%d", (k+j)%97), i*entries+k+j))
				}
				commit(n, cs)
			}
		}
		others := func(n *sim.Node) bool { return n != w.Node(0) }
		w.Until(func() bool { return w.EqualAmong(others) }, 100*time.Millisecond, time.Minute)
		before := measure(w)
		n := w.Node(0)
		n.Start()
		var first time.Duration
		d, ok := w.Until(func() bool {
			if first == 0 && n.Table("net").View().Service("s1") != nil {
				first = w.Now()
			}
			return w.Equal()
		}, time.Millisecond, time.Minute)
		start := w.Now() - d
		fmt.Printf("join impl=meshd nodes=%d endpoints=%d first_answer_ms=%s full_ms=%s bytes=%d equal=%v link=%s\n",
			nodes, entries, ms(first-start), ms(d), measure(w).bytes-before.bytes, ok, link)
	}
}
