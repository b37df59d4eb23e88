package lb

import (
	"runtime"
	"sync"
	"time"
)

// The bounds of a Budget.
const (
	budgetShare = 20                    // one part in so many of the time of one processor
	budgetRest  = 50 * time.Millisecond // and no more than so often
	budgetSaved = 4 * time.Second       // of rest that a calm while has saved up: a fifth of a second of work in a row
)

// Budget bounds the time that is spent because of others: what one of those who
// share it spent is followed by a rest of all that they spent, so many times
// over. Who has not spent anything for a while goes at once. It is safe for
// concurrent use; the zero value is ready.
type Budget struct {
	// Processor returns the processor time that the calling thread has used. Nil:
	// what took a time cost as much of a processor, which is too much where the
	// kernel is waited for.
	Processor func() time.Duration

	mu        sync.Mutex
	restUntil time.Time // until then, rests are given out
}

// Spend calls f and returns how long whoever asked for it is to rest afterwards.
// Of the time that passes, at least half is rest.
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

// measure calls f on one thread.
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
