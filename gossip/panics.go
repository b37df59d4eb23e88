package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"meshd/state"
)

// This file owns what a host remembers of steps that panicked, so that each kind is
// logged once per panicInterval. How a step survives its panic is Host.step's.

// panicInterval spaces the records of panics of one kind: a packet that makes a core
// panic can come a thousand times a second.
const panicInterval = time.Minute

// panics counts panics and remembers which were logged. Safe for concurrent use.
type panics struct {
	count atomic.Uint64

	mu     sync.Mutex           // guards logged
	logged map[string]time.Time // by kind of step
}

// report counts a panic and logs it if it is due. It returns the event about it, and
// whether the event is due as well.
func (p *panics) report(log *slog.Logger, kind string, peer state.NodeID, r any, attrs ...any) (e Event, due bool) {
	p.count.Add(1)
	if !p.due(kind, time.Now()) {
		return Event{}, false
	}
	attrs = append(attrs, "step", kind, "peer", string(peer), "error", fmt.Sprint(r), "stack", string(debug.Stack()))
	log.Error("internal error: a step of the protocol panicked and was dropped; please report it", attrs...)
	return Event{
		Kind: EventPanic, Node: peer,
		Reason: fmt.Sprintf("a step of the protocol (%s) panicked and was dropped: %v", kind, r),
	}, true
}

// due reports whether a panic of that kind is to be reported now.
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

// handlerPanicked reports the panic of a call's handler.
func (h *Host) handlerPanicked(ctx context.Context, e Event, reason any) {
	if panicked, due := h.panics.report(h.log, "handler "+e.Call.Op, e.Node, reason); due {
		_ = h.Do(ctx, func(*Core, time.Duration) { h.handleEvent(panicked) })
	}
}
