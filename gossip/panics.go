package gossip

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"meshd/state"
)

// ErrPanicked is returned by Do for a function that panicked.
var ErrPanicked = errors.New("internal error: the function panicked; see the log")

// panics is what a host keeps of what panicked.
type panics struct {
	mu     sync.Mutex           // guards logged
	logged map[string]time.Time // by kind of step
}

// panicInterval spaces the records of panics of one kind: a packet that makes a
// core panic comes a thousand times a second, if somebody means it.
const panicInterval = time.Minute

// due reports whether a panic of that kind is to be told.
func (p *panics) due(kind string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, ok := p.logged[kind]; ok && now.Sub(last) < panicInterval {
		return false
	}
	if p.logged == nil {
		p.logged = map[string]time.Time{}
	}
	p.logged[kind] = now
	return true
}

// step runs one step of the core's loop, and outlives its panic (G12).
//
// To go on is right, and better than to end: who found one packet that panics
// would end every node of the mesh with it, again after each restart. The
// packet is dropped, like one that was lost. What the step had half done cannot
// spread: a stream changes in one place, after all checks, and Repair looks
// which streams do not have the content that their heads say; those are asked
// for as a whole. What else the core keeps is a cache of it, or a timer.
func (h *Host) step(kind string, from func() state.NodeID, f func()) {
	defer func() {
		if r := recover(); r != nil {
			wrong := h.core.Repair(h.now())
			if e, due := h.reportPanic(kind, from(), r, "streams_to_ask_for", wrong); due {
				h.event(e)
			}
		}
	}()
	f()
}

// reportPanic counts and logs a panic, and says whether it is to be told further.
func (h *Host) reportPanic(kind string, peer state.NodeID, r any, attrs ...any) (Event, bool) {
	h.panicked.Add(1)
	if !h.panics.due(kind, time.Now()) {
		return Event{}, false
	}
	attrs = append(attrs, "step", kind, "peer", string(peer), "error", fmt.Sprint(r), "stack", string(debug.Stack()))
	h.log.Error("internal error: a step of the protocol panicked and was dropped; please report it", attrs...)
	return Event{
		Kind: EventPanic, Node: peer,
		Reason: fmt.Sprintf("a step of the protocol (%s) panicked and was dropped: %v", kind, r),
	}, true
}

// receive handles one packet.
func (h *Host) receive(p packet) {
	h.inboxBytes.Add(-int64(len(p.data)))
	h.step("packet", func() state.NodeID {
		head, _, err := decodeHead(p.data)
		if err != nil {
			return ""
		}
		return head.from
	}, func() { h.core.ReceiveFrom(h.now(), p.from, p.data) })
}

// noPeer is whose fault a step is that no packet caused.
func noPeer() state.NodeID { return "" }
