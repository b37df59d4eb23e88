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
	for _, h := range f.heads {
		key := streamKey{n.name, h.Owner}
		if q := c.pulls[key]; q != nil && q.at == from {
			delete(c.pulls, key)
		}
	}
	c.compare(from, n, f.heads, nil)
	return nil
}

// pull is a want that is under way.
type pull struct {
	at       state.NodeID
	since    time.Duration
	deadline time.Duration
	asked    bool           // else: waiting a moment for the push to arrive otherwise
	small    bool           // the answer should be one datagram
	tries    int            // so far
	also     []state.NodeID // who else has it
}

// maxPulls bounds the pulls under way (G7).
const maxPulls = 1 << 14

// maxTries is how often a small pull is sent before it is left to repair.
const maxTries = 4

// smallGap is how many versions a small pull may lack.
const smallGap = 16

// pulling registers a pull that is sent now.
func (c *Core) pulling(key streamKey, p *pull) {
	p.since, p.asked = c.now, true
	wait := c.cfg.WantTimeout
	if p.small {
		wait = min(wait, max(8*time.Millisecond, 5*c.rtt)<<p.tries)
	}
	p.tries++
	c.wait(key, p, c.now+c.jitter(wait))
}

func (c *Core) wait(key streamKey, p *pull, until time.Duration) {
	p.deadline = until
	if len(c.pulls) == 0 || until < c.pullAt {
		c.pullAt = until
	}
	c.pulls[key] = p
}

// answered ends a pull, and measures how long it took.
func (c *Core) answered(key streamKey, from state.NodeID) {
	p := c.pulls[key]
	if p == nil {
		return
	}
	if p.asked && p.small && p.tries == 1 && p.at == from {
		c.rtt += (c.now - p.since - c.rtt) / 8
	}
	delete(c.pulls, key)
}

// wantAll asks a peer for several streams in one packet; those that are asked
// for elsewhere already are left out.
func (c *Core) wantAll(from state.NodeID, n *network, ws []lack) {
	var todo []state.Want
	for _, w := range ws {
		key := streamKey{n.name, w.Owner}
		if p := c.pulls[key]; p != nil && c.now < p.deadline {
			if p.at != from && len(p.also) < 3 && !slices.Contains(p.also, from) {
				p.also = append(p.also, from)
			}
			continue
		}
		if len(c.pulls) >= maxPulls {
			break // G7: the rest is found again
		}
		c.pulling(key, &pull{at: from, small: w.small})
		todo = append(todo, w.Want)
	}
	c.sendWants(from, n, todo)
}

func (c *Core) sendWants(to state.NodeID, n *network, ws []state.Want) {
	for len(ws) > 0 { // a want takes at most ~40 bytes and a name
		k := min(len(ws), 512)
		e := c.packet()
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

func (c *Core) want(from state.NodeID, n *network, w state.Want, h state.Head) {
	c.wantAll(from, n, []lack{lackOf(w, h)})
}

// wantSoon asks after a moment: the missing push is probably on its way.
func (c *Core) wantSoon(from state.NodeID, n *network, w state.Want) {
	key := streamKey{n.name, w.Owner}
	if p := c.pulls[key]; p != nil {
		if p.at != from && len(p.also) < 3 && !slices.Contains(p.also, from) {
			p.also = append(p.also, from)
		}
		return
	}
	if len(c.pulls) < maxPulls {
		c.wait(key, &pull{at: from, small: true}, c.now+c.cfg.Coalesce)
	}
}

// retryPulls asks again what was not answered in time: others that have it, or
// the same peer if the answer is small, for then it was probably lost.
func (c *Core) retryPulls() {
	if len(c.pulls) == 0 || c.now < c.pullAt {
		return
	}
	var due []streamKey
	c.pullAt = time.Duration(1<<63 - 1)
	for k, p := range c.pulls {
		if c.now >= p.deadline {
			due = append(due, k)
		} else {
			c.pullAt = min(c.pullAt, p.deadline)
		}
	}
	slices.SortFunc(due, func(a, b streamKey) int {
		return cmp.Or(cmp.Compare(a.network, b.network), cmp.Compare(a.owner, b.owner))
	})
	for _, k := range due {
		p, n := c.pulls[k], c.networks[k.network]
		delete(c.pulls, k)
		if n != nil && c.retarget(p) {
			c.pulling(k, p)
			c.sendWants(p.at, n, []state.Want{n.table.WantNext(k.owner)})
		}
	}
}

// retarget says whom to ask next, or that repair shall find it.
func (c *Core) retarget(p *pull) bool {
	if !p.asked {
		return true
	}
	c.Stats.PullTimeouts++
	if len(p.also) > 0 {
		p.at, p.also = p.also[0], p.also[1:]
		return true
	}
	return p.small && p.tries < maxTries
}

// buriedThere handles a head that a peer has buried: if its owner is dead here
// too, so do we, or the dead would be handed on for ever (S9).
func (c *Core) buriedThere(n *network, h state.OwnerHead) {
	m := c.members[h.Owner]
	own, ok := n.table.Head(h.Owner)
	if m != nil && ok && own.Inc <= h.Head.Inc && (m.phase == phaseDead || m.phase == phaseLeft) {
		n.table.Bury(h.Owner)
	}
	if _, waits := c.reaps[h.Owner]; ok && !waits {
		c.store.Reap(h.Owner)
	}
}
