package gossip

import (
	"cmp"
	"slices"
	"time"

	"meshd/state"
)

// onMore handles the heads of streams that we asked a peer for and that did
// not fit its answer: ask again.
func (c *Core) onMore(from state.NodeID, p []byte) error {
	f, err := decodeHeads(frameMore, p)
	if err != nil {
		return err
	}
	n := c.networks[f.network]
	if n == nil {
		return nil
	}
	n.moreComing = true
	c.comparisons = slices.DeleteFunc(c.comparisons, func(g comparison) bool { return g.n == n && g.to == from })
	for _, h := range f.heads {
		key := streamKey{n.name, h.Owner}
		if q := c.pulls[key]; q != nil && q.peer == from {
			c.dropPull(key)
		}
	}
	c.compareHeads(from, n, f.heads, nil)
	return nil
}

// pull is a want that is under way.
type pull struct {
	peer     state.NodeID
	sentAt   time.Duration
	deadline time.Duration
	sent     bool           // else: waiting a moment for the push to arrive otherwise
	small    bool           // the answer should be one datagram
	tries    int            // so far
	others   []state.NodeID // who else has it
}

// The bounds of the pulls under way, and of those at one peer: who names
// streams that nobody has must not keep this node from asking others (G7, G13).
const (
	maxPulls   = 1 << 14
	maxPullsAt = maxPulls / 4
)

// hasPullRoom reports whether one more stream may be asked of a peer.
func (c *Core) hasPullRoom(at state.NodeID) bool {
	return len(c.pulls) < maxPulls && c.pullsPerPeer[at] < maxPullsAt
}

// setPull registers a pull, and replaces the stream's former one.
func (c *Core) setPull(key streamKey, p *pull) {
	c.dropPull(key)
	c.pulls[key] = p
	c.pullsPerPeer[p.peer]++
}

// dropPull forgets a pull. The peer that it is at changes only after that.
func (c *Core) dropPull(key streamKey) {
	p := c.pulls[key]
	if p == nil {
		return
	}
	delete(c.pulls, key)
	if c.pullsPerPeer[p.peer]--; c.pullsPerPeer[p.peer] == 0 {
		delete(c.pullsPerPeer, p.peer)
	}
}

// maxTries is how often a small pull is sent before it is left to repair.
const maxTries = 4

// smallGap is how many versions a small pull may lack.
const smallGap = 16

// pullSent registers a pull that is sent now.
func (c *Core) pullSent(key streamKey, p *pull) {
	p.sentAt, p.sent = c.now, true
	wait := c.cfg.WantTimeout
	if p.small {
		wait = min(wait, max(8*time.Millisecond, 5*c.rtt)<<p.tries)
	}
	p.tries++
	c.schedulePull(key, p, c.now+c.jitter(wait))
}

func (c *Core) schedulePull(key streamKey, p *pull, until time.Duration) {
	p.deadline = until
	if len(c.pulls) == 0 || until < c.pullsDue {
		c.pullsDue = until
	}
	c.setPull(key, p)
}

// pullAnswered ends a pull, and measures how long it took.
func (c *Core) pullAnswered(key streamKey, from state.NodeID) {
	p := c.pulls[key]
	if p == nil {
		return
	}
	if p.sent && p.small && p.tries == 1 && p.peer == from {
		c.rtt += (c.now - p.sentAt - c.rtt) / 8
	}
	c.dropPull(key)
}

// pullAll asks a peer for several streams in one packet; those that are asked
// for elsewhere already are left out.
func (c *Core) pullAll(from state.NodeID, n *network, ws []lack) {
	var todo []state.Want
	for _, w := range ws {
		key := streamKey{n.name, w.Owner}
		if p := c.pulls[key]; p != nil && c.now < p.deadline {
			if p.peer != from && len(p.others) < 3 && !slices.Contains(p.others, from) {
				p.others = append(p.others, from)
			}
			continue
		}
		if !c.hasPullRoom(from) {
			break // G7: the rest is found again
		}
		c.pullSent(key, &pull{peer: from, small: w.small})
		todo = append(todo, w.Want)
	}
	c.sendWants(from, n, todo)
}

func (c *Core) sendWants(to state.NodeID, n *network, ws []state.Want) {
	for len(ws) > 0 { // a want takes at most ~40 bytes and a name
		k := min(len(ws), 512)
		e := c.newPacket()
		e.wants(n.name, ws[:k])
		c.Stats.Wants += uint64(k)
		c.send(to, e)
		ws = ws[k:]
	}
}

// lack is a want, and whether its answer should be one datagram.
type lack struct {
	state.Want
	small bool
}

// lackOf returns what a replica that wants w lacks of a stream at h.
func lackOf(w state.Want, h state.Head) lack {
	have := uint64(0)
	if w.Inc == h.Inc && !w.Snapshot {
		have = min(w.After, h.Version)
	}
	return lack{w, h.Version-have <= smallGap}
}

func (c *Core) pullOne(from state.NodeID, n *network, w state.Want, h state.Head) {
	c.pullAll(from, n, []lack{lackOf(w, h)})
}

// pullSoon asks after a moment: the missing push is probably on its way.
func (c *Core) pullSoon(from state.NodeID, n *network, w state.Want) {
	key := streamKey{n.name, w.Owner}
	if p := c.pulls[key]; p != nil {
		if p.peer != from && len(p.others) < 3 && !slices.Contains(p.others, from) {
			p.others = append(p.others, from)
		}
		return
	}
	if c.hasPullRoom(from) {
		c.schedulePull(key, &pull{peer: from, small: true}, c.now+c.cfg.Coalesce)
	}
}

// retryPulls asks again what was not answered in time: others that have it, or
// the same peer if the answer is small, for then it was probably lost.
func (c *Core) retryPulls() {
	if len(c.pulls) == 0 || c.now < c.pullsDue {
		return
	}
	var due []streamKey
	c.pullsDue = time.Duration(1<<63 - 1)
	for k, p := range c.pulls {
		if c.now >= p.deadline {
			due = append(due, k)
		} else {
			c.pullsDue = min(c.pullsDue, p.deadline)
		}
	}
	slices.SortFunc(due, func(a, b streamKey) int {
		return cmp.Or(cmp.Compare(a.network, b.network), cmp.Compare(a.owner, b.owner))
	})
	again := map[streamKey][]state.Want{} // by network and the peer to ask
	var order []streamKey
	for _, k := range due {
		p, n := c.pulls[k], c.networks[k.network]
		c.dropPull(k)
		if n == nil || !c.chooseNextPeer(p) || !c.hasPullRoom(p.peer) {
			continue
		}
		c.pullSent(k, p)
		to := streamKey{k.network, p.peer}
		if again[to] == nil {
			order = append(order, to)
		}
		again[to] = append(again[to], n.table.WantNext(k.owner))
	}
	for _, to := range order {
		c.sendWants(to.owner, c.networks[to.network], again[to])
	}
}

// chooseNextPeer says whom to ask next, or that repair shall find it.
func (c *Core) chooseNextPeer(p *pull) bool {
	if !p.sent {
		return true
	}
	c.Stats.PullTimeouts++
	if len(p.others) > 0 {
		p.peer, p.others = p.others[0], p.others[1:]
		return true
	}
	return p.small && p.tries < maxTries
}

// onRetiredHead handles a head that a peer has buried: if its owner is dead here
// too, so do we, or the dead would be handed on for ever (S9).
func (c *Core) onRetiredHead(n *network, h state.OwnerHead) {
	m := c.members[h.Owner]
	own, ok := n.table.Head(h.Owner)
	if m != nil && ok && own.Inc <= h.Head.Inc && livenessOf(m.phase) == state.Dead {
		n.table.Bury(h.Owner)
	}
	if _, waits := c.reapTimes[h.Owner]; ok && !waits {
		c.store.Reap(h.Owner)
	}
}
