package main

import (
	"fmt"
	"time"

	"meshd/state"
	"meshd/test/sim"
)

// listCost is of all others, listed in a random order by a node that knows nobody, but
// has a table, as one that was cut off from them.
func listCost(c *crowd) (cpu time.Duration, bytes, times int) {
	c.Store().Global().SetSynced()
	cpu, bytes = c.cost(func() {
		for _, i := range c.rng.Perm(len(c.names)) {
			c.list(i)
			c.now += 10 * time.Microsecond
		}
	})
	return cpu, bytes, 1
}

// joinCost is of a member that is listed, and of the next change that this node makes.
func joinCost(c *crowd) (cpu time.Duration, bytes, times int) {
	const each = 50
	k := 0
	cpu, bytes = c.least(5, func() {
		for range each {
			k++
			name := state.NodeID(fmt.Sprintf("n%06d-%d", c.rng.IntN(len(c.names)), k))
			c.MemberAlive(c.now, name, crowdAddr(1<<20+k))
			c.drain()
			c.change()
		}
	})
	return cpu, bytes, each
}

// change has this node write something, so that it looks for others to push it to.
func (c *crowd) change() {
	c.now += 10 * time.Millisecond
	must(c.Commit(c.now, "", []state.Change{{Kind: state.KindBeacon, Body: string(state.AppendBeacon(nil, c.now))}}))
	c.drain()
}

// deathCost is of a member that is reported dead, and of the next change that this
// node makes.
func deathCost(c *crowd) (cpu time.Duration, bytes, times int) {
	const each = 50
	var gone []int
	cpu, bytes = c.least(5, func() {
		for range each {
			i := c.rng.IntN(len(c.names))
			gone = append(gone, i)
			c.MemberDead(c.now, c.names[i])
			c.drain()
			c.change()
		}
	})
	for _, i := range gone {
		c.list(i)
		c.reach(i)
	}
	c.run(c.now+20*time.Second, c.alive)
	return cpu, bytes, each
}

// lossCost is of a tenth of all members that are reported dead within a second, until
// the last of them is hidden.
func lossCost(c *crowd) (cpu time.Duration, bytes, times int) {
	lost := c.rng.Perm(len(c.names))[:len(c.names)/10]
	c.dead = 0
	cpu, bytes = c.cost(func() {
		begin := c.now
		for k, i := range lost {
			c.run(begin+time.Second*time.Duration(k)/time.Duration(len(lost)), nil)
			c.MemberDead(c.now, c.names[i])
			c.drain()
		}
		for c.dead < len(lost) && c.now < begin+time.Minute {
			c.run(c.now+10*time.Millisecond, nil)
		}
	})
	return cpu, bytes, 1
}

// idleCost is of a second in which nothing happens but what the membership's probes
// and the comparisons of tables bring.
func idleCost(c *crowd) (cpu time.Duration, bytes, times int) {
	const seconds = 10
	cpu, bytes = c.least(3, func() {
		for range seconds * 5 {
			c.run(c.now+200*time.Millisecond, nil)
			c.alive()
		}
	})
	return cpu, bytes, seconds
}

// mismatchCost is of two nodes whose tables differ in one stream, from the first hash
// to equal tables: both of them together.
func mismatchCost(c *crowd) (cpu time.Duration, bytes, times int) {
	const each = 20
	peer := c.newPeer(0)
	for i, name := range c.names {
		peer.apply([]*state.Delta{c.Store().Global().Delta(state.Want{Owner: name}, 1<<30)})
		peer.list(i)
	}
	for range 4 {
		c.compare(peer) // their own streams
	}
	sources := map[int]*state.Store{}
	for run := range 5 {
		used, sent := time.Duration(0), c.sent+peer.sent
		for range each {
			i := c.rng.IntN(len(c.names))
			if sources[i] == nil {
				sources[i], _ = c.statements(i)
			}
			peer.apply([]*state.Delta{c.restate(sources[i], i)})
			d, _ := c.cost(func() { c.compare(peer) })
			used += d
			peer.drain()
		}
		if c.Store().Global().Hash() != peer.Store().Global().Hash() {
			panic("the tables did not become equal")
		}
		if sent = c.sent + peer.sent - sent; run == 0 || used < cpu {
			cpu, bytes = used, sent
		}
	}
	return cpu, bytes, each
}

// newPeer returns the core of one more node, in so many networks; the two know each
// other.
func (c *crowd) newPeer(networks int) *crowd {
	peer := newCrowdOf(options{seed: 1}, len(c.names), networks, "peer")
	peer.now = c.now
	peer.MemberAlive(c.now, "self", crowdAddr(len(c.names)))
	peer.Store().Global().SetSynced()
	peer.drain()
	c.MemberAlive(c.now, "peer", crowdAddr(len(c.names)+1))
	c.drain()
	return peer
}

// restate has node i write something more, and returns the delta.
func (c *crowd) restate(src *state.Store, i int) *state.Delta {
	h, _ := src.Global().Head(c.names[i])
	commitTo(src.Global(), []state.Change{{Kind: state.KindBeacon, Body: string(state.AppendBeacon(nil, c.now))}})
	return src.Global().Delta(state.Want{Owner: c.names[i], Inc: h.Inc, From: h.Version, After: h.Version}, 1<<20)
}

// compare has the core probe a peer, whoever it chose, and carries packets between the
// two until none is left.
func (c *crowd) compare(peer *crowd) {
	for probes := c.Stats.Probes; c.Stats.Probes == probes; {
		c.drain()
		c.now = max(c.now, c.Next())
		c.Tick(c.now)
	}
	from, to := c, peer
	for packets := c.drain(); len(packets) > 0; {
		to.now = max(to.now, from.now)
		for _, s := range packets {
			to.Receive(to.now, s.Data)
		}
		from, to = to, from
		packets = from.drain()
	}
}

// packetCost is of a packet with a change that is known already.
func packetCost(c *crowd) (cpu time.Duration, bytes, times int) {
	const each = 2000
	peer := c.newPeer(1)
	self := state.NewStore("self", 1, state.DefaultLimits(), new(clock))
	commitTo(self.Global(), []state.Change{{Kind: state.KindMember, Key: networkName(0)}})
	peer.apply([]*state.Delta{self.Global().Delta(state.Want{Owner: "self"}, 1<<20)})
	must(peer.Commit(peer.now, networkName(0), []state.Change{sim.Endpoint("t", "web", 1)}))
	var push []byte
	for _, s := range peer.drain() {
		push = s.Data
	}
	before := c.Stats.Duplicates
	cpu, bytes = c.least(5, func() {
		for range each {
			c.Receive(c.now, push)
			c.drain()
		}
	})
	if c.Stats.Duplicates-before < 4*each {
		panic("the packet has no change")
	}
	return cpu, bytes, each
}

// eventCost is of a member that is reported dead, or listed again.
func eventCost(c *crowd) (cpu time.Duration, bytes, times int) {
	const each = 500
	cpu, bytes = c.least(5, func() {
		for k := range each / 2 {
			i := k % len(c.names)
			c.MemberDead(c.now, c.names[i])
			c.drain()
			c.list(i)
			c.reach(i)
			c.now += 10 * time.Millisecond
		}
	})
	return cpu, bytes, each
}
