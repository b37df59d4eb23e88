package sim

import (
	"fmt"
	"time"

	"meshd/state"
)

// fault does one of the things that happen to hosts and networks.
func (c *Chaos) fault(n *Node) {
	w := c.World
	switch k := c.rng.IntN(16); k {
	case 0, 1:
		c.partition()
	case 2:
		c.log("heal")
		w.Heal()
	case 3, 4:
		c.asymmetric(n)
	case 5, 6:
		c.pause(n)
	case 7, 8, 9:
		c.crash(n, k < 9)
	case 10:
		c.rollback(n)
	case 11:
		c.leave(n)
	case 12:
		c.massRestart()
	case 13:
		c.jump(n)
	case 14:
		c.burst(n)
	case 15:
		c.network(n)
	}
}

func (c *Chaos) partition() {
	groups := make([]int, len(c.World.nodes))
	for i := range groups {
		groups[i] = c.rng.IntN(2 + c.rng.IntN(2))
	}
	c.log("partition %v", groups)
	c.World.Partition(func(i int) int { return groups[i] })
	c.later(c.soon(20*time.Second), func() { c.log("heal"); c.World.Heal() })
}

func (c *Chaos) asymmetric(n *Node) {
	w, i := c.World, int(n.index)
	cut := []Cut{CutDatagrams, CutStreams, CutAll}[c.rng.IntN(3)]
	in, share := c.rng.IntN(2) == 0, c.rng.Float64()
	c.log("cut %d of %.0f %% of links, to %s: %v", cut, 100*share, n.ID, in)
	for j := range w.nodes {
		if j == i || c.rng.Float64() > share {
			continue
		}
		if in {
			w.CutOff(j, i, cut)
		} else {
			w.CutOff(i, j, cut)
		}
	}
	c.later(c.soon(15*time.Second), func() {
		c.log("mend %s", n.ID)
		for j := range w.nodes {
			w.CutOff(i, j, 0)
			w.CutOff(j, i, 0)
		}
	})
}

func (c *Chaos) pause(n *Node) {
	if !n.up || n.paused {
		return
	}
	d := c.soon(20 * time.Second)
	c.log("pause %s for %v", n.ID, d)
	n.Pause()
	c.later(d, n.Resume)
}

func (c *Chaos) crash(n *Node, disk bool) {
	if !n.up {
		return
	}
	d := c.soon(20 * time.Second)
	c.log("crash %s for %v, disk %v", n.ID, d, disk)
	if !disk {
		c.Check.Loses(n)
	}
	n.Crash(disk)
	c.Check.Orphan(c.names)
	if c.rng.IntN(8) > 0 {
		c.later(d, func() { c.start(n) })
	}
}

func (c *Chaos) start(n *Node) {
	if !n.up {
		c.log("start %s", n.ID)
		n.Start()
	}
}

// rollback restarts a node with an older disk.
func (c *Chaos) rollback(n *Node) {
	if !n.up {
		return
	}
	n.saveClaims()
	old, d := n.disk.clone(), c.soon(5*time.Second)
	c.log("roll %s back to now in %v", n.ID, d)
	c.later(d, func() {
		if n.up {
			c.log("rollback %s", n.ID)
			c.Check.Loses(n)
			n.Crash(true)
			n.disk = old
			c.Check.Orphan(c.names)
			n.Start()
		}
	})
}

func (c *Chaos) leave(n *Node) {
	if !n.up || n.paused {
		return
	}
	c.log("leave %s", n.ID)
	c.Check.Loses(n)
	n.Leave()
	c.later(200*time.Millisecond+c.soon(10*time.Second), func() { c.Check.Orphan(c.names); c.start(n) })
}

func (c *Chaos) massRestart() {
	if c.rng.IntN(3) > 0 {
		return
	}
	c.log("restart of all")
	for _, n := range c.World.nodes {
		if n.up {
			n.Crash(true)
			c.later(c.soon(3*time.Second), func() { c.start(n) })
		}
	}
	c.Check.Orphan(c.names)
}

func (c *Chaos) jump(n *Node) {
	d := []time.Duration{time.Second, time.Minute, time.Hour / 4}[c.rng.IntN(3)]
	c.log("clock of %s jumps by %v", n.ID, d)
	n.Jump(d)
}

func (c *Chaos) burst(n *Node) {
	if !n.up || n.paused {
		return
	}
	c.log("burst of %s", n.ID)
	var cs []state.Change
	for k := range 20 + c.rng.IntN(400) {
		cs = append(cs, Endpoint(fmt.Sprintf("%s-x%d", n.ID, k), c.names[k%len(c.names)], c.rng.IntN(60000)))
	}
	n.must(n.Commit(cs...))
}

// network makes a node join or leave a second network.
func (c *Chaos) network(n *Node) {
	if !n.up || n.paused {
		return
	}
	joined := n.Table("blue") != nil
	c.log("%s takes part in blue: %v", n.ID, !joined)
	n.Take("blue", !joined)
}
