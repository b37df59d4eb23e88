package gossip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/state"
)

// memberQueue carries membership events to the host's goroutine. memberlist
// calls its delegates under its own lock, so they only append here.
type memberQueue struct {
	ready chan struct{}

	mu      sync.Mutex // guards what follows
	queue   []memberEvent
	last    map[state.NodeID]int // where in queue a node was last listed or not, once it is long
	dropped uint64               // answers and conflicts over the bound: they come again
}

// maxMemberEvents is how many events wait before only the last of each node counts.
const maxMemberEvents = 8192

type memberEvent struct {
	kind byte // 'j'oin, 'l'eave, 'c'onflict, 'r'eached, 'a'nswer to a join (of nobody knows whom)
	id   state.NodeID
	addr netip.AddrPort
}

func (q *memberQueue) add(kind byte, n *memberlist.Node) {
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

func (q *memberQueue) insert(e memberEvent) {
	if len(q.queue) < maxMemberEvents {
		q.queue = append(q.queue, e)
		return
	}
	if e.kind != 'j' && e.kind != 'l' {
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

// nodeAddr is where memberlist says that a node is.
func nodeAddr(n *memberlist.Node) netip.AddrPort {
	a, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(a.Unmap(), n.Port)
}

func (q *memberQueue) take() []memberEvent {
	q.mu.Lock()
	defer q.mu.Unlock()
	es := q.queue
	q.queue, q.last = nil, nil
	return es
}

func (h *Host) handleMemberEvents() {
	for _, e := range h.memberEventQueue.take() {
		h.step("membership", func() state.NodeID { return e.id }, func() { h.handleMemberEvent(e) })
	}
}

func (h *Host) handleMemberEvent(e memberEvent) {
	switch e.kind {
	case 'j':
		h.joiner.setListed(e.id, e.addr)
		h.core.MemberAlive(h.now(), e.id, e.addr)
	case 'l':
		h.joiner.setListed(e.id, netip.AddrPort{})
		h.core.MemberDead(h.now(), e.id)
	case 'r':
		h.joiner.peerAnswered(e.id, e.addr)
		h.core.MemberReached(h.now(), e.id, e.addr)
	case 'a':
		h.core.JoinAnswered(h.now(), e.addr)
	case 'c':
		h.core.Conflict(h.now(), e.id, e.addr)
		h.logConflict(e)
	}
}

// conflictMemory is how long a conflict is not told again.
const conflictMemory = 10 * time.Minute

// logConflict says that a name is used at another address than the membership
// has: once, although every packet of the other repeats it.
func (h *Host) logConflict(e memberEvent) {
	now := h.now()
	if at, ok := h.conflicts[e]; ok && now-at < conflictMemory {
		return
	}
	for o, at := range h.conflicts {
		if now-at >= conflictMemory {
			delete(h.conflicts, o)
		}
	}
	if len(h.conflicts) >= 256 {
		return
	}
	h.conflicts[e] = now
	h.log.Warn("a node name is used at another address: it moved, or two nodes have it", "node", string(e.id), "other",
		e.addr.String())
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses, before anything
// is noted, a node at an address that no node can have, and more nodes than
// there can be.
func (h *Host) NotifyAlive(n *memberlist.Node) error {
	a := nodeAddr(n)
	switch {
	case state.NodeID(n.Name) == h.cfg.Self:
		return nil
	case state.CheckName(n.Name) != nil:
		return errors.New("its name is none")
	case !h.core.usableAddr(a):
		return fmt.Errorf("%v is no address of a node", a)
	case h.joiner.listedCount.Load() >= maxListed && !h.joiner.isListed(state.NodeID(n.Name)):
		return errors.New("there are too many nodes")
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (h *Host) NotifyJoin(n *memberlist.Node) { h.memberEventQueue.add('j', n) }

// NotifyLeave implements memberlist.EventDelegate.
func (h *Host) NotifyLeave(n *memberlist.Node) { h.memberEventQueue.add('l', n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (h *Host) NotifyUpdate(n *memberlist.Node) { h.memberEventQueue.add('j', n) }

// NotifyConflict implements memberlist.ConflictDelegate.
func (h *Host) NotifyConflict(_, other *memberlist.Node) { h.memberEventQueue.add('c', other) }

// NodeMeta implements memberlist.Delegate.
func (h *Host) NodeMeta(int) []byte { return nil }

// packet is one of ours as it came.
type packet struct {
	from netip.AddrPort // the zero AddrPort: not known
	data []byte
}

// NotifyMsg implements memberlist.Delegate: an enqueue and nothing else (G1). It
// gets what came over streams: datagrams do not take the way through memberlist.
func (h *Host) NotifyMsg(b []byte) { h.enqueue(netip.AddrPort{}, b) }

// enqueue puts a packet of ours where the host's goroutine finds it, a copy of it.
func (h *Host) enqueue(from netip.AddrPort, b []byte) {
	if len(b) > maxPacket || h.inboxBytes.Add(int64(len(b))) > maxInboxBytes {
		if len(b) <= maxPacket {
			h.inboxBytes.Add(-int64(len(b)))
		}
		h.dropped.Add(1)
		return
	}
	select {
	case h.inbox <- packet{from, slices.Clone(b)}:
	default:
		h.inboxBytes.Add(-int64(len(b)))
		h.dropped.Add(1)
	}
}

// GetBroadcasts implements memberlist.Delegate: we do not use its queue (G3).
func (h *Host) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (h *Host) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (h *Host) MergeRemoteState([]byte, bool) {}
