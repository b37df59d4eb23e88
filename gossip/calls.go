package gossip

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"meshd/state"
)

// This file owns calls between hosts: a request to one node and its answer, over the
// same encrypted wire as the protocol. meshctl diff and the key verbs use them. The
// core only carries them, see callframes.go.

// maxServing bounds the handlers that run at once (G7).
const maxServing = 64

// Pace of a call: how often it is sent again, and how long its answer may wait for the
// loop.
const (
	callAgain     = 250 * time.Millisecond
	answerTimeout = 5 * time.Second
)

// handler answers requests of one operation.
type handler func(from state.NodeID, body []byte) []byte

// callTable holds the calls that wait for an answer, and the handlers of those of
// others. Safe for concurrent use.
type callTable struct {
	callDeps
	serving chan struct{} // a slot per running handler

	mu       sync.Mutex // guards what follows
	waiting  map[uint64]waiter
	handlers map[string]handler // by operation
}

// callDeps is what calls need of their host.
type callDeps struct {
	do       func(ctx context.Context, f func(c *Core, now time.Duration)) error
	spawn    func(f func()) bool                            // runs f, unless the host has ended
	panicked func(ctx context.Context, e Event, reason any) // a handler of e panicked
}

// waiter is a call that waits for an answer.
type waiter struct {
	peer state.NodeID // only it may answer
	ch   chan []byte
}

func newCallTable(deps callDeps) *callTable {
	return &callTable{
		callDeps: deps, serving: make(chan struct{}, maxServing), waiting: map[uint64]waiter{},
		handlers: map[string]handler{},
	}
}

// Handle installs the handler of an operation, which gets a request's body and returns
// the answer's. It runs in a goroutine of its own and may use Do.
func (h *Host) Handle(op string, f func(from state.NodeID, body []byte) []byte) {
	h.calls.mu.Lock()
	defer h.calls.mu.Unlock()
	h.calls.handlers[op] = f
}

// Call sends a request to a node and waits for its answer until ctx ends. It sends the
// request several times, so handlers must be idempotent.
func (h *Host) Call(ctx context.Context, to state.NodeID, op string, body []byte) ([]byte, error) {
	return h.calls.call(ctx, to, op, body)
}

func (t *callTable) call(ctx context.Context, to state.NodeID, op string, body []byte) ([]byte, error) {
	id := rand.Uint64() // cannot be guessed, and is not one of a former life, whose answers may come again
	ch := make(chan []byte, 1)
	t.mu.Lock()
	t.waiting[id] = waiter{to, ch}
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.waiting, id)
		t.mu.Unlock()
	}()
	again := time.NewTicker(callAgain)
	defer again.Stop()
	for {
		err := t.do(ctx, func(c *Core, now time.Duration) { c.Call(now, to, Call{ID: id, Op: op, Body: body}) })
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

// receive takes an EventCall or an EventReply of the core.
func (t *callTable) receive(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Kind == EventReply {
		if w, ok := t.waiting[e.Call.ID]; ok && w.peer == e.Node {
			select {
			case w.ch <- e.Call.Body:
			default:
			}
		}
		return
	}
	f := t.handlers[e.Call.Op]
	if f == nil {
		return
	}
	select {
	case t.serving <- struct{}{}:
	default:
		return // overloaded: the caller asks again
	}
	t.spawn(func() {
		defer func() { <-t.serving }()
		t.answer(e, f)
	})
}

// answer runs a handler and sends what it returns.
func (t *callTable) answer(e Event, f handler) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			t.panicked(ctx, e, r)
		}
	}()
	body := f(e.Node, e.Call.Body)
	_ = t.do(ctx, func(c *Core, now time.Duration) { // after an error the caller asks again
		c.Reply(now, e.Node, Call{ID: e.Call.ID, Op: e.Call.Op, Body: body})
	})
}
