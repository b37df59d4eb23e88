package gossip

import "meshd/state"

// onDeltas handles deltas, pushed or asked for.
func (c *Core) onDeltas(from state.NodeID, typ byte, p []byte) error {
	d := decoder{b: p}
	hops := 0
	var last *network
	if typ == framePush {
		hops = int(d.byte()) + 1
	}
	var first error
	for len(d.b) > 0 && d.err == nil {
		x := d.delta()
		if d.err != nil {
			break
		}
		c.Stats.DeltasIn++
		last = c.networks[x.Network]
		if err := c.apply(from, x, typ == framePush, hops); err != nil && first == nil {
			first = err
		}
	}
	if last != nil && typ == frameDelta {
		c.tablePartArrived(last, from)
	}
	if d.err != nil {
		return d.err
	}
	return first
}

// apply merges one delta and does what follows from the result.
func (c *Core) apply(from state.NodeID, x *state.Delta, pushed bool, hops int) error {
	n := c.networks[x.Network]
	if n == nil {
		return nil
	}
	if x.Owner == c.cfg.Self && !c.yielded {
		c.defendOwn(n, x.Head(), false)
		return nil
	}
	was, known := n.table.Head(x.Owner)
	r, err := c.store.Apply(x)
	key := streamKey{x.Network, x.Owner}
	switch r {
	case state.Ignored:
		c.Stats.Duplicates++
		c.correctOwner(n, from, x)
	case state.Applied:
		c.pullAnswered(key, from)
		c.afterApply(n, from, x, pushed, hops, known)
		if n.name == "" {
			c.ownerWrote(x.Owner, was)
		}
		if w, need := n.table.Want(x.Owner, x.Head()); err != nil && need {
			c.pullOne(from, n, w, x.Head())
		}
	case state.Staged:
		if w, need := n.table.Want(x.Owner, x.Head()); need {
			c.dropPull(key)
			c.pullOne(from, n, w, x.Head())
		}
	case state.Gap:
		c.Stats.Gaps++
		if w, need := n.table.Want(x.Owner, x.Head()); need {
			c.pullSoon(from, n, w)
		}
	}
	return err
}

// correctOwner tells an owner that we hold more of its stream than it says: it has
// lost its disk or went back to an older one, and defends itself (S7).
func (c *Core) correctOwner(n *network, from state.NodeID, x *state.Delta) {
	h, ok := n.table.Head(x.Owner)
	if from != x.Owner || !ok || h.Inc < x.Inc || h.Inc == x.Inc && (!x.Snapshot || h == x.Head()) {
		return
	}
	e := c.newPacket()
	e.heads(frameHot, n.name, 0, nil, false, []state.OwnerHead{{Owner: x.Owner, Head: h}})
	c.send(from, e)
}

// afterApply spreads news on and looks at what the global scope says.
func (c *Core) afterApply(n *network, from state.NodeID, x *state.Delta, pushed bool, hops int, known bool) {
	c.Stats.Applied++
	c.noteNews(n, x.Owner)
	hereOnly := !pushed && n.fetching(c.now)
	if !known {
		c.learnOwner(x.Owner)
	}
	if n.name == "" {
		c.afterGlobalDelta(x)
	}
	switch {
	case hereOnly:
	case pushed:
		c.enqueuePush(pushItem{delta: x, from: from, hops: hops})
	case x.Whole() && !x.Snapshot && deltaSize(x) <= c.cfg.Datagram-64:
		// Pulled because its push was lost or its carrier told us: it may be new
		// around here too, so say that we have it, but do not push it again.
	default:
		c.advertise(n, x.Owner, from)
	}
}

// afterGlobalDelta reacts to changes of the global scope.
func (c *Core) afterGlobalDelta(x *state.Delta) {
	for i := range x.Records {
		r := &x.Records[i]
		switch r.Kind {
		case state.KindMember:
			delete(c.targets, r.Key)
			if n := c.networks[r.Key]; n != nil && !r.Deleted {
				c.compareWith(n, x.Owner)
			}
		case state.KindBeacon:
			if stamp, err := state.ParseBeacon(r.Body); err == nil && !r.Deleted {
				c.emit(Event{Kind: EventBeacon, Node: x.Owner, Stamp: stamp})
			}
		case state.KindNode:
			c.learnAddr(x.Owner)
		}
	}
	if x.Snapshot || !x.Whole() { // of chunks, these are the last records only
		clear(c.targets)
	}
	if x.Snapshot {
		c.reapLater(x.Owner)
		if m := c.members[x.Owner]; m != nil && len(x.Records) == 0 && x.To > 1 {
			c.observe(m, signGoodbyeHeard) // its last, empty snapshot: it left in order (S9)
		}
	}
}

func (c *Core) reapLater(o state.NodeID) {
	if _, waits := c.reapTimes[o]; !waits && len(c.reapTimes) >= maxReaps {
		c.Stats.ReapsDropped++
		return
	}
	c.reapTimes[o] = c.now + reapAfter
}

func (c *Core) reap() {
	for o, at := range c.reapTimes {
		if c.now >= at {
			delete(c.reapTimes, o)
			c.store.Reap(o)
		}
	}
}

// noteNews keeps repair busy and remembers the stream as hot.
func (c *Core) noteNews(n *network, owner state.NodeID) {
	c.busyUntil = c.now + c.cfg.BusyFor
	if c.repairAt > c.now+c.cfg.RepairBusy {
		c.repairAt = c.now + c.jitter(c.cfg.RepairBusy)
	}
	if len(n.hot) >= maxHot {
		n.hot = append(n.hot[:0], n.hot[maxHot/2:]...)
	}
	n.hot = append(n.hot, hotHead{owner, c.now})
	if len(c.hotTimes) == 0 {
		j := c.jitter(c.cfg.HotAfter)
		c.hotTimes = append(c.hotTimes, c.now+j, c.now+5*j/2, c.now+6*j)
	}
}
