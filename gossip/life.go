package gossip

import "time"

// nextIncarnation is when this node starts a higher incarnation of its streams (S7).
type nextIncarnation struct {
	above     uint64        // the highest incarnation of ours that peers hold
	due       time.Duration // when the next one is due; 0: none is
	lastStart time.Duration // when the last one started; 0: never
	pause     time.Duration // before the next
}

// Pace of incarnations: the first answer to a peer that holds more of us than we
// do is given at once. Each costs a packet to everybody around and a write to the
// disk, so that what peers say in the meantime is answered together, and ever
// more rarely while they go on.
const (
	lifePause    = time.Second
	lifePauseMax = 30 * time.Second
)

// needIncarnationAbove makes a higher incarnation of all own streams start soon: a peer
// holds what we did not write, at incarnation seen.
func (c *Core) needIncarnationAbove(seen uint64) {
	l := &c.next
	l.above = max(l.above, seen)
	if l.due > 0 {
		return
	}
	if c.now-l.lastStart > 2*lifePauseMax {
		l.pause = 0
	}
	if l.lastStart == 0 {
		l.due = max(c.now, 1)
	} else {
		l.due = max(c.now, l.lastStart+l.pause, 1)
	}
	if l.due <= c.now {
		c.startIncarnation()
	}
}

// startIncarnation starts the incarnation that is due.
func (c *Core) startIncarnation() {
	l := &c.next
	if l.due == 0 || c.now < l.due {
		return
	}
	l.pause = min(max(2*l.pause, lifePause), lifePauseMax)
	l.due, l.lastStart = 0, max(c.now, 1)
	c.reincarnate(l.above)
}

// reincarnate starts a higher incarnation of all own streams and tells the
// participants.
func (c *Core) reincarnate(seen uint64) {
	c.Stats.Reincarnations++
	c.store.Reincarnate(max(seen, c.store.Incarnation()) + 1)
	c.emit(Event{Kind: EventReincarnate})
	for _, name := range c.order {
		n := c.networks[name]
		if _, ok := n.table.Head(c.cfg.Self); ok {
			n.pushed = 0
			c.pushOwn(n)
		}
	}
}
