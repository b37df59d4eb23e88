package gossip

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// workHost is as much of a Host as Do needs; serve stands in for its loop.
func workHost() *Host {
	return &Host{core: &Core{}, work: make(chan *work, 4), done: make(chan struct{}), start: time.Now()}
}

// While the core's goroutine is busy, a call ends with its context, and what
// was asked for never happens: the caller may use its variables, and undo.
func TestDoEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := workHost()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var ran atomic.Bool
		if err := h.Do(ctx, func(*Core, time.Duration) { ran.Store(true) }); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("with a core that is busy: got %v", err)
		}
		(<-h.work).run(h.core, h.now())
		if ran.Load() {
			t.Error("ran after its caller had gone")
		}
	})
}

// What has begun is waited for: an error would say that it did not happen.
func TestDoWaitsForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := workHost()
		ctx, cancel := context.WithCancel(t.Context())
		began, end := make(chan struct{}), make(chan struct{})
		go func() { (<-h.work).run(h.core, h.now()) }()
		result, answer := 0, make(chan error, 1)
		go func() {
			answer <- h.Do(ctx, func(*Core, time.Duration) { close(began); <-end; result = 7 })
		}()
		<-began
		cancel()
		synctest.Wait()
		select {
		case err := <-answer:
			t.Fatalf("returned %v while the work was running", err)
		default:
		}
		close(end)
		if err := <-answer; err != nil || result != 7 {
			t.Errorf("got %v with the result %d", err, result)
		}
	})
}

// A host that stops before it came to the work says so, and never runs it.
func TestDoOfAStoppedHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := workHost()
		answer := make(chan error, 1)
		go func() { answer <- h.Do(t.Context(), func(*Core, time.Duration) { t.Error("ran") }) }()
		synctest.Wait()
		close(h.done)
		if err := <-answer; !errors.Is(err, ErrStopped) {
			t.Errorf("got %v", err)
		}
		(<-h.work).run(h.core, h.now())
	})
}
