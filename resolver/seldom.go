package resolver

import (
	"sync/atomic"
	"time"
)

// seldomEvery is how often one thing that questions or replies can cause is logged.
const seldomEvery = 10 * time.Second

// seldom keeps what clients and upstreams can cause, as often as they like, from
// filling the log. Its zero value is ready; it is safe for concurrent use.
type seldom struct {
	last atomic.Int64 // in nanoseconds since 1970; 0: never
}

// due reports whether it is time for a line, and notes that there is one.
func (s *seldom) due(now time.Time) bool {
	last := s.last.Load()
	if since := time.Duration(now.UnixNano() - last); last != 0 && since >= 0 && since < seldomEvery {
		return false
	}
	return s.last.CompareAndSwap(last, now.UnixNano())
}
