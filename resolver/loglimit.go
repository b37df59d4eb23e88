package resolver

// This file owns how often a line is logged that questions or replies can cause.

import (
	"sync/atomic"
	"time"
)

// logInterval is the least time between two lines of one logLimit.
const logInterval = 10 * time.Second

// logLimit keeps what clients and upstreams can cause, as often as they like, from
// filling the log. Its zero value is ready; it is safe for concurrent use.
type logLimit struct {
	last atomic.Int64 // when a line was due, in nanoseconds since 1970; 0: never
}

// due reports whether a line may be logged, and counts it as logged if so.
func (l *logLimit) due(now time.Time) bool {
	last := l.last.Load()
	if since := time.Duration(now.UnixNano() - last); last != 0 && since >= 0 && since < logInterval {
		return false
	}
	return l.last.CompareAndSwap(last, now.UnixNano())
}
