package main

import (
	"fmt"
	"slices"
	"time"

	"meshd/state"
	"meshd/test/sim"
)

func churn(o options) {
	for _, nodes := range []int{25, 100} {
		for _, rate := range []int{10, 100, 1000} {
			if o.wants("nodes=%d per_s=%d", nodes, rate) {
				churnOne(o, nodes, rate)
			}
		}
	}
}

// churnOne replaces endpoints at a constant rate and measures, for each
// replacement and node, how long until it is visible there.
func churnOne(o options, nodes, rate int) {
	lasts := 20 * time.Second
	if o.quick {
		lasts = 5 * time.Second
	}
	var c *churning
	w := knownWorld(o, nodes, sim.Options{OnStep: func(n *sim.Node) {
		if c != nil {
			c.step(n)
		}
	}})
	c = &churning{w: w, seen: make([][]int, nodes), made: make([][]change, nodes), last: make([]int, nodes)}
	for i := range nodes {
		c.seen[i], c.last[i] = make([]int, nodes), -1
	}
	before := measure(w)
	gap := time.Second / time.Duration(rate)
	for k := range int(lasts / gap) {
		w.After(time.Duration(k)*gap, func() { c.replace(w.Rand().IntN(nodes), k) })
	}
	w.Run(lasts)
	backlog := c.backlog()
	_, ok := w.Until(func() bool { return c.backlog() == 0 }, 10*time.Millisecond, time.Minute)
	bytes := float64(measure(w).bytes-before.bytes) / float64(nodes) / (lasts.Seconds() * float64(rate))
	slices.Sort(c.times)
	fmt.Printf("churn impl=meshd nodes=%d per_s=%d p50_ms=%s p90_ms=%s p99_ms=%s max_ms=%s backlog=%d drained=%v "+
		"bytes_per_change=%.0f link=%s\n",
		nodes, rate, ms(quantile(c.times, .5)), ms(quantile(c.times, .9)), ms(quantile(c.times, .99)),
		ms(quantile(c.times, 1)), backlog, ok, bytes, link)
}

// churning remembers every change and how many of each owner's every node has.
type churning struct {
	w     *sim.World
	made  [][]change // by owner, in version order
	seen  [][]int    // by node and owner
	last  []int      // the newest task of each owner
	times []time.Duration
}

type change struct {
	version uint64
	at      time.Duration
}

func (c *churning) step(n *sim.Node) {
	i := n.Number()
	for o, made := range c.made {
		if o == i || c.seen[i][o] == len(made) {
			continue
		}
		h, _ := n.Table("net").Head(c.w.Node(o).ID)
		for k := c.seen[i][o]; k < len(made) && made[k].version <= h.Version; k++ {
			c.times = append(c.times, c.w.Now()-made[k].at)
			c.seen[i][o]++
		}
	}
}

// replace starts one endpoint and removes another of the same node.
func (c *churning) replace(owner, k int) {
	n := c.w.Node(owner)
	commit(n, []state.Change{
		sim.Endpoint(fmt.Sprintf("%s-c%d", n.ID, k), "web", k),
		sim.Remove(fmt.Sprintf("%s-c%d", n.ID, c.last[owner])),
	})
	h, _ := n.Table("net").Head(n.ID)
	c.made[owner] = append(c.made[owner], change{h.Version, c.w.Now()})
	c.last[owner] = k
}

func (c *churning) backlog() (n int) {
	for i := range c.seen {
		for o := range c.made {
			if i != o {
				n += len(c.made[o]) - c.seen[i][o]
			}
		}
	}
	return n
}
