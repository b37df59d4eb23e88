package gossip

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"meshd/state"
)

// Calls between hosts: a request to one node and its answer, over the same
// encrypted wire as the protocol. meshctl diff and the key verbs use them.

type callTable struct {
	mu       sync.Mutex // guards what follows
	waiting  map[uint64]waiter
	handlers map[string]func(from state.NodeID, body []byte) []byte
	serving  chan struct{} // a slot per running handler
}

type waiter struct {
	peer state.NodeID
	ch   chan []byte
}

func (t *callTable) init() {
	t.serving = make(chan struct{}, maxServing)
	t.waiting = map[uint64]waiter{}
	t.handlers = map[string]func(state.NodeID, []byte) []byte{}
}

// Handle installs the handler of an operation: it gets the request's body and
// returns the answer's. It runs in a goroutine of its own and may use Do.
func (h *Host) Handle(op string, f func(from state.NodeID, body []byte) []byte) {
	h.calls.mu.Lock()
	defer h.calls.mu.Unlock()
	h.calls.handlers[op] = f
}

// maxServing bounds the handlers that run at once (G7).
const maxServing = 64

// Call sends a request to a node and waits for its answer, asking again a few
// times until ctx ends: handlers must be idempotent.
func (h *Host) Call(ctx context.Context, to state.NodeID, op string, body []byte) ([]byte, error) {
	id := rand.Uint64() // not to be guessed, and not that of a former life, whose answers may come again
	ch := make(chan []byte, 1)
	h.calls.mu.Lock()
	h.calls.waiting[id] = waiter{to, ch}
	h.calls.mu.Unlock()
	defer func() {
		h.calls.mu.Lock()
		delete(h.calls.waiting, id)
		h.calls.mu.Unlock()
	}()
	again := time.NewTicker(250 * time.Millisecond)
	defer again.Stop()
	for {
		err := h.Do(ctx, func(c *Core, now time.Duration) { c.Call(now, to, Call{ID: id, Op: op, Body: body}) })
		if err != nil {
			return nil, err
		}
		select {
		case b := <-ch:
			return b, nil
		case <-again.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("node %q does not answer: %w", to, ctx.Err())
		}
	}
}

// event takes the core's call events; it reports false for others.
func (t *callTable) event(h *Host, e Event) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Kind == EventReply {
		if w, ok := t.waiting[e.Call.ID]; ok && w.peer == e.Node {
			select {
			case w.ch <- e.Call.Body:
			default:
			}
		}
		return true
	}
	f := t.handlers[e.Call.Op]
	if f == nil {
		return true
	}
	select {
	case t.serving <- struct{}{}:
	default:
		return true // overloaded: the caller asks again
	}
	h.spawn(func() {
		defer func() { <-t.serving }()
		h.answer(e, f)
	})
	return true
}

// answer runs a handler and sends what it returns.
func (h *Host) answer(e Event, f func(from state.NodeID, body []byte) []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			if panicked, due := h.reportPanic("handler "+e.Call.Op, e.Node, r); due {
				_ = h.Do(ctx, func(*Core, time.Duration) { h.event(panicked) })
			}
		}
	}()
	body := f(e.Node, e.Call.Body)
	_ = h.Do(ctx, func(c *Core, now time.Duration) { // the caller asks again
		c.Reply(now, e.Node, Call{ID: e.Call.ID, Op: e.Call.Op, Body: body})
	})
}
