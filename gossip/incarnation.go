package gossip

import (
	"time"

	"meshd/state"
)

// This file owns when this node starts a higher incarnation of its streams (S7):
// when a peer holds more of them than this node wrote.

// incarnation starts higher incarnations of this node's streams (S7).
type incarnation struct {
	*env
	outbox *outbox
	nets   *nets
	push   publisher

	next nextIncarnation
}

// nextIncarnation is when this node starts a higher incarnation, and above which.
type nextIncarnation struct {
	above     uint64        // the highest incarnation of this node that peers hold
	due       time.Duration // when it starts; 0: none is due
	lastStart time.Duration // when the last one started; 0: never
	pause     time.Duration // between the last one and the next
}

// The pace of incarnations. The first answer to a peer that holds more of this
// node than it wrote is given at once. Each incarnation costs a packet to every
// neighbour and a write to the disk, so what peers hold meanwhile is answered
// together, and more and more rarely while they go on.
const (
	lifePause    = time.Second
	lifePauseMax = 30 * time.Second
)

// defend looks at what a peer holds of this node's own stream (S7).
func (i *incarnation) defend(n *network, h state.Head, buried bool) {
	if buried && n.table.SelfRetired(h) || n.table.SelfAhead(h) {
		i.needAbove(h.Inc)
	}
}

// needAbove makes a higher incarnation of all own streams start soon: a peer
// holds what this node did not write, at incarnation seen.
func (i *incarnation) needAbove(seen uint64) {
	l := &i.next
	l.above = max(l.above, seen)
	if l.due > 0 {
		return
	}
	if i.now-l.lastStart > 2*lifePauseMax {
		l.pause = 0
	}
	if l.lastStart == 0 {
		l.due = max(i.now, 1)
	} else {
		l.due = max(i.now, l.lastStart+l.pause, 1)
	}
	if l.due <= i.now {
		i.startDue()
	}
}

// startDue starts the incarnation that is due.
func (i *incarnation) startDue() {
	l := &i.next
	if l.due == 0 || i.now < l.due {
		return
	}
	l.pause = min(max(2*l.pause, lifePause), lifePauseMax)
	l.due, l.lastStart = 0, max(i.now, 1)
	i.start(l.above)
}

// start starts a higher incarnation of all own streams and pushes them.
func (i *incarnation) start(seen uint64) {
	i.Stats.Reincarnations++
	i.store.Reincarnate(max(seen, i.store.Incarnation()) + 1)
	i.outbox.emit(Event{Kind: EventReincarnate})
	for _, name := range i.nets.order {
		n := i.nets.byName[name]
		if _, ok := n.table.Head(i.cfg.Self); ok {
			n.pushed = 0
			i.push.pushOwn(n)
		}
	}
}
