package gossip

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// This file owns how other goroutines reach the core: Do queues a function, which the
// loop runs, or never does. It also owns the goroutines that the host's end waits for.

// ErrPanicked is returned by Do for a function that panicked.
var ErrPanicked = errors.New("internal error: the function panicked; see the log")

// Do runs f in the goroutine that owns the core and waits for it. f must not block or
// call Do. If Do returns an error, f has not run and never will: what it would have
// written is the caller's alone, and nothing is half done. So Do ends with ctx, but for
// the moments in which f is running. The one exception is ErrPanicked.
func (h *Host) Do(ctx context.Context, f func(c *Core, now time.Duration)) error {
	return h.work.do(ctx, f)
}

// workQueue holds the functions that wait for the loop.
type workQueue struct {
	queue chan *work
	ended chan struct{} // closed when the loop has ended
}

// maxWork is how many functions wait before do blocks.
const maxWork = 64

func newWorkQueue() workQueue {
	return workQueue{queue: make(chan *work, maxWork), ended: make(chan struct{})}
}

// end says that nothing runs any more.
func (q *workQueue) end() { close(q.ended) }

func (q *workQueue) do(ctx context.Context, f func(c *Core, now time.Duration)) error {
	w := &work{f: f, finished: make(chan struct{})}
	select {
	case q.queue <- w:
	case <-ctx.Done():
		return ctx.Err()
	case <-q.ended:
		return ErrStopped
	}
	var err error
	select {
	case <-w.finished:
		return w.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-q.ended:
		err = ErrStopped
	}
	if w.claimed.CompareAndSwap(false, true) {
		return err
	}
	<-w.finished
	return w.err
}

// work is one call of Do. Whoever claims it first decides: the loop runs it, or its
// caller has gone and it never runs.
type work struct {
	f        func(c *Core, now time.Duration)
	claimed  atomic.Bool
	finished chan struct{} // closed when f has returned
	err      error         // to be read once finished is closed
}

func (w *work) run(c *Core, now time.Duration) {
	if w.claimed.CompareAndSwap(false, true) {
		defer close(w.finished)
		w.err = ErrPanicked
		w.f(c, now)
		w.err = nil
	}
}

// tasks are the goroutines that the host's end waits for.
type tasks struct {
	wg sync.WaitGroup

	mu    sync.Mutex // guards ended: nothing is added to wg afterwards
	ended bool
}

// spawn runs f in a goroutine that the host's end waits for, and reports false if the
// host has ended.
func (t *tasks) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.wg.Go(f)
	}
	return !t.ended
}

// end lets no further task begin.
func (t *tasks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}

// wait returns when all tasks have ended.
func (t *tasks) wait() { t.wg.Wait() }
