package lb

import (
	"runtime"
	"sync"
	"time"
)

// The bounds of a Budget.
const (
	budgetShare = 20                    // work takes one part in so many of the time of one processor
	budgetRest  = 50 * time.Millisecond // the shortest rest after work
	budgetSaved = 4 * time.Second       // most rest that may be saved up: 0.2 s of work in a row
)

// Budget bounds the time that is spent because of others (L15). Several goroutines
// may share one: each rests for budgetShare times what all of them spent. After a
// while without work, work begins at once. It is safe for concurrent use; the zero
// value is ready.
type Budget struct {
	// Processor returns the processor time that the calling thread has used. Nil: the
	// time that passes is counted, which is too much for work that waits.
	Processor func() time.Duration

	mu        sync.Mutex
	restUntil time.Time // the end of all rests that were given out
}

// Spend calls f and returns how long the caller has to rest afterwards, at least as
// long as f took.
func (b *Budget) Spend(f func()) (rest time.Duration) {
	begin := time.Now()
	cost := b.measureThread(f)
	now := time.Now()
	took := now.Sub(begin)
	if b.Processor == nil {
		cost = took
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if saved := now.Add(-budgetSaved); b.restUntil.Before(saved) {
		b.restUntil = saved
	}
	b.restUntil = b.restUntil.Add(budgetShare * cost)
	return max(b.restUntil.Sub(now), took, budgetRest)
}

// measureThread calls f on one thread, and returns the processor time that it used;
// 0 without Processor.
func (b *Budget) measureThread(f func()) time.Duration {
	if b.Processor == nil {
		f()
		return 0
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := b.Processor()
	f()
	return b.Processor() - before
}
