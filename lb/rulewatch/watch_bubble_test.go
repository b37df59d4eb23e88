package rulewatch_test

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb/rulewatch"
)

// fakeKernel tells what a test gives it.
type fakeKernel struct {
	events chan error // nil: a transaction
	closed chan struct{}
}

func newKernel() *fakeKernel {
	return &fakeKernel{events: make(chan error, 1000), closed: make(chan struct{})}
}

func (k *fakeKernel) Wait() (int, error) {
	select {
	case err := <-k.events:
		if err != nil {
			return 0, err
		}
		return 1, nil
	case <-k.closed:
		return 0, errors.New("closed")
	}
}

func (k *fakeKernel) Listen(bool) error { return nil }
func (k *fakeKernel) Close() error      { close(k.closed); return nil }

func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

// received counts what a receiver was told, and empties it.
func received(c <-chan struct{}) (n int) {
	for {
		select {
		case <-c:
			n++
		default:
			return n
		}
	}
}

// Every receiver is told of the first transaction at once, and of those that
// follow it together; and of what was missed.
func TestReceivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newKernel()
		w := rulewatch.New(func(func(uint32) bool) (rulewatch.Kernel, error) { return kernel, nil },
			slog.New(slog.DiscardHandler))
		first, second := w.Subscribe(), w.Subscribe()
		run(t, w)
		synctest.Wait()
		told := func(want int) {
			t.Helper()
			synctest.Wait()
			if a, b := received(first), received(second); a != want || b != want {
				t.Errorf("told %d and %d times, want %d", a, b, want)
			}
		}
		told(0)
		kernel.events <- nil
		told(1)
		kernel.events <- nil
		told(0)
		pass(20 * time.Millisecond)
		told(1)
		kernel.events <- rulewatch.ErrMissed
		pass(20 * time.Millisecond)
		told(1)
		if c := w.Counters(); c != (rulewatch.Counters{Heard: 2, Missed: 1}) {
			t.Errorf("counted %+v", c)
		}
	})
}

// A subscription that cannot be had is tried again less and less often, and both
// its loss and its return are told: in between, others have to be asked.
func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := errors.New("too many open files")
		var latest atomic.Pointer[fakeKernel]
		var tries atomic.Int64
		var possible atomic.Bool
		w := rulewatch.New(func(func(uint32) bool) (rulewatch.Kernel, error) {
			tries.Add(1)
			if !possible.Load() {
				return nil, refuse
			}
			latest.Store(newKernel())
			return latest.Load(), nil
		}, slog.New(slog.DiscardHandler))
		told := w.Subscribe()
		run(t, w)
		pass(10 * time.Minute)
		if err, n := w.Err(), tries.Load(); !errors.Is(err, refuse) || n < 20 || n > 30 || received(told) != 0 {
			t.Errorf("%d tries in ten minutes, trouble %v", n, err)
		}
		possible.Store(true)
		pass(30 * time.Second)
		if w.Err() != nil || received(told) != 1 {
			t.Errorf("it can be had: trouble %v", w.Err())
		}
		latest.Load().events <- nil
		synctest.Wait()
		latest.Load().events <- errors.New("bad file descriptor")
		pass(20 * time.Millisecond)
		if w.Err() == nil || received(told) != 1 {
			t.Errorf("it is lost: trouble %v", w.Err())
		}
		pass(time.Second)
		if w.Err() != nil || received(told) != 1 {
			t.Errorf("a second later: trouble %v", w.Err())
		}
		select {
		case <-latest.Load().closed:
			t.Error("closed")
		default:
		}
	})
}
