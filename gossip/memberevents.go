package gossip

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/state"
)

// This file owns what the membership reports on its way to the core, in order and
// bounded.

// memberEventKind is what the membership reports.
type memberEventKind byte

const (
	memberJoined   memberEventKind = iota // a node is listed, perhaps at another address than before
	memberGone                            // it is taken for dead, or left
	memberConflict                        // its name is used at another address too
	memberReached                         // it answered a probe
	memberAnswered                        // some node at an address answered a join
)

// memberEvent is one report of the membership.
type memberEvent struct {
	kind memberEventKind
	id   state.NodeID // "" for memberAnswered
	addr netip.AddrPort
}

// memberQueue carries membership events to the host's goroutine. memberlist calls its
// delegates under its own lock, so they only append here. Safe for concurrent use.
type memberQueue struct {
	ready chan struct{} // holds a token when there is something to take

	mu      sync.Mutex // guards what follows
	queue   []memberEvent
	last    map[state.NodeID]int // where in queue the last join or end of a node is, once it is long
	dropped uint64               // answers and conflicts over the bound: they come again
}

// maxMemberEvents is how many events wait before only the last of each node counts.
const maxMemberEvents = 8192

func newMemberQueue() memberQueue { return memberQueue{ready: make(chan struct{}, 1)} }

// add adds an event about a node of memberlist's.
func (q *memberQueue) add(kind memberEventKind, n *memberlist.Node) {
	q.addEvent(memberEvent{kind, state.NodeID(n.Name), nodeAddr(n)})
}

func (q *memberQueue) addEvent(e memberEvent) {
	q.mu.Lock()
	q.insert(e)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// insert adds an event within the bounds. The caller holds mu.
func (q *memberQueue) insert(e memberEvent) {
	if len(q.queue) < maxMemberEvents {
		q.queue = append(q.queue, e)
		return
	}
	if e.kind != memberJoined && e.kind != memberGone {
		q.dropped++
		return
	}
	if i, ok := q.last[e.id]; ok {
		q.queue[i] = e
		return
	}
	if q.last == nil {
		q.last = map[state.NodeID]int{}
	}
	q.last[e.id] = len(q.queue)
	q.queue = append(q.queue, e)
}

// take empties the queue.
func (q *memberQueue) take() []memberEvent {
	q.mu.Lock()
	defer q.mu.Unlock()
	es := q.queue
	q.queue, q.last = nil, nil
	return es
}

// nodeAddr is where memberlist says that a node is.
func nodeAddr(n *memberlist.Node) netip.AddrPort {
	a, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(a.Unmap(), n.Port)
}

// handleMemberEvents gives the core what the membership reported.
func (h *Host) handleMemberEvents() {
	for _, e := range h.memberEvents.take() {
		h.step("membership", func() state.NodeID { return e.id }, func() { h.handleMemberEvent(e) })
	}
}

func (h *Host) handleMemberEvent(e memberEvent) {
	switch e.kind {
	case memberJoined:
		h.joiner.setListed(e.id, e.addr)
		h.core.MemberAlive(h.now(), e.id, e.addr)
	case memberGone:
		h.joiner.setListed(e.id, netip.AddrPort{})
		h.core.MemberDead(h.now(), e.id)
	case memberReached:
		h.joiner.peerAnswered(e.id, e.addr)
		h.core.MemberReached(h.now(), e.id, e.addr)
	case memberAnswered:
		h.core.JoinAnswered(h.now(), e.addr)
	case memberConflict:
		h.core.Conflict(h.now(), e.id, e.addr)
		h.conflicts.report(h.log, h.now(), e)
	}
}

// conflictLog remembers which name conflicts were logged: every packet of the other
// node repeats its conflict.
type conflictLog struct {
	logged map[memberEvent]time.Duration // when, at most maxConflicts
}

const (
	conflictMemory = 10 * time.Minute // a conflict is logged again after that
	maxConflicts   = 256
)

// report logs that a name is used at another address than the one that the membership
// lists.
func (c *conflictLog) report(log *slog.Logger, now time.Duration, e memberEvent) {
	if at, ok := c.logged[e]; ok && now-at < conflictMemory {
		return
	}
	for o, at := range c.logged {
		if now-at >= conflictMemory {
			delete(c.logged, o)
		}
	}
	if len(c.logged) >= maxConflicts {
		return
	}
	c.logged[e] = now
	log.Warn("a node name is used at another address: it moved, or two nodes have it", "node", string(e.id), "other",
		e.addr.String())
}
