package gossip

import "time"

// life is when this node starts a higher incarnation of its streams (S7).
type life struct {
	seen  uint64        // the highest incarnation of ours that peers hold
	at    time.Duration // when the next one is due; 0: none is
	last  time.Duration // when the last one started; 0: never
	pause time.Duration // before the next
}

// Pace of incarnations: the first answer to a peer that holds more of us than we
// do is given at once. Each costs a packet to everybody around and a write to the
// disk, so that what peers say in the meantime is answered together, and ever
// more rarely while they go on.
const (
	lifePause    = time.Second
	lifePauseMax = 30 * time.Second
)

// wantLife makes a higher incarnation of all own streams start soon: a peer
// holds what we did not write, at incarnation seen.
func (c *Core) wantLife(seen uint64) {
	l := &c.life
	l.seen = max(l.seen, seen)
	if l.at > 0 {
		return
	}
	if c.now-l.last > 2*lifePauseMax {
		l.pause = 0
	}
	if l.last == 0 {
		l.at = max(c.now, 1)
	} else {
		l.at = max(c.now, l.last+l.pause, 1)
	}
	if l.at <= c.now {
		c.startLife()
	}
}

// startLife starts the incarnation that is due.
func (c *Core) startLife() {
	l := &c.life
	if l.at == 0 || c.now < l.at {
		return
	}
	l.pause = min(max(2*l.pause, lifePause), lifePauseMax)
	l.at, l.last = 0, max(c.now, 1)
	c.reincarnate(l.seen)
}

// reincarnate starts a higher incarnation of all own streams and tells the
// participants.
func (c *Core) reincarnate(seen uint64) {
	c.Stats.Reincarnations++
	c.store.Reincarnate(max(seen, c.store.Incarnation()) + 1)
	c.event(Event{Kind: EventReincarnate})
	for _, name := range c.order {
		n := c.networks[name]
		if _, ok := n.table.Head(c.cfg.Self); ok {
			n.pushed = 0
			c.committed(n)
		}
	}
}
