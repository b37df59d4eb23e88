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
func (i *lives) needIncarnationAbove(seen uint64) {
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
		i.startIncarnation()
	}
}

// startIncarnation starts the incarnation that is due.
func (i *lives) startIncarnation() {
	l := &i.next
	if l.due == 0 || i.now < l.due {
		return
	}
	l.pause = min(max(2*l.pause, lifePause), lifePauseMax)
	l.due, l.lastStart = 0, max(i.now, 1)
	i.reincarnate(l.above)
}

// reincarnate starts a higher incarnation of all own streams and tells the
// participants.
func (i *lives) reincarnate(seen uint64) {
	i.Stats.Reincarnations++
	i.store.Reincarnate(max(seen, i.store.Incarnation()) + 1)
	i.outbox.emit(Event{Kind: EventReincarnate})
	for _, name := range i.nets.order {
		n := i.nets.networks[name]
		if _, ok := n.table.Head(i.cfg.Self); ok {
			n.pushed = 0
			i.push.pushOwn(n)
		}
	}
}

// lives starts incarnations.
type lives struct {
	*env
	outbox *outbox
	nets   *nets
	push   *push

	next nextIncarnation
}
