package gossip

import (
	"net/netip"
	"time"

	"meshd/gossip/transport"
	"meshd/state"
)

// This file makes memberlist forget where it lists a node that has moved.
//
// memberlist refuses a node at a new address while it takes the old one for alive. That
// nobody is there it finds out when it happens to probe the old address, and then it
// suspects for a while: up to five seconds among 25 nodes for one that heard of the old
// address late. The core knows earlier: the node answered a nonce at the new address, and
// not at the old one. So the joiner gives memberlist a message that the node is dead, as
// memberlist itself would find out.
//
// Such a message counts only from the incarnation on that memberlist has of the node, and
// memberlist does not say which that is. So numbers are tried from one on, until the node
// is not listed there any more. None is much higher than needed, and the node, which
// hears of it, takes a higher one.

// move is a node that the membership lists where it is not.
type move struct {
	from, to netip.AddrPort
	inc      uint32    // the number to try next
	at       time.Time // when it is tried
}

const (
	unlistInterval       = 10 * time.Millisecond
	maxUnlistIncarnation = 1 << 12 // above it, memberlist finds out by itself
	maxMoves             = 256     // at a time; above it, likewise
)

// unlist makes memberlist forget where it lists a node that is at to.
func (j *joiner) unlist(id state.NodeID, to netip.AddrPort) {
	j.mu.Lock()
	if from := j.listed[id]; from.IsValid() && from != to && len(j.moves) < maxMoves {
		j.moves[id] = &move{from: from, to: to, inc: 1}
	}
	j.mu.Unlock()
	j.wakeUp()
}

// unlistMoved injects the messages that are due, and returns in how long there are more.
func (j *joiner) unlistMoved(now time.Time) (again time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	again = rejoinInterval
	for id, m := range j.moves {
		switch {
		case j.listed[id] != m.from, m.inc > maxUnlistIncarnation:
			delete(j.moves, id)
			continue
		case !now.Before(m.at):
			j.inject(transport.DeadMessage(string(id), string(j.self), m.inc))
			m.inc += max(1, m.inc/4)
			m.at = now.Add(unlistInterval)
		}
		again = min(again, max(m.at.Sub(now), time.Millisecond))
	}
	return again
}
