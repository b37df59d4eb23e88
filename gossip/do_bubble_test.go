package gossip

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// runOne is one round of a host's loop.
func runOne(q *workQueue) { (<-q.queue).run(&Core{}, 0) }

// While the core's goroutine is busy, a call ends with its context, and what
// was asked for never happens: the caller may use its variables, and undo.
func TestDoEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newWorkQueue()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var ran atomic.Bool
		if err := q.do(ctx, func(*Core, time.Duration) { ran.Store(true) }); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("with a core that is busy: got %v", err)
		}
		runOne(&q)
		if ran.Load() {
			t.Error("ran after its caller had gone")
		}
	})
}

// What has begun is waited for: an error would say that it did not happen.
func TestDoWaitsForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newWorkQueue()
		ctx, cancel := context.WithCancel(t.Context())
		began, end := make(chan struct{}), make(chan struct{})
		go runOne(&q)
		result, answer := 0, make(chan error, 1)
		go func() {
			answer <- q.do(ctx, func(*Core, time.Duration) { close(began); <-end; result = 7 })
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
		q := newWorkQueue()
		answer := make(chan error, 1)
		go func() { answer <- q.do(t.Context(), func(*Core, time.Duration) { t.Error("ran") }) }()
		synctest.Wait()
		q.end()
		if err := <-answer; !errors.Is(err, ErrStopped) {
			t.Errorf("got %v", err)
		}
		runOne(&q)
	})
}
