package state

import (
	"slices"
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v4"
)

// This file owns how readers hear that something changed: by a count that they
// compare, by the last changes, and by subscriptions.

// changeFeed counts the changes that readers can see and keeps the last ones. The
// table's goroutine writes; everything may be read from anywhere.
type changeFeed struct {
	changes atomic.Uint64
	recent  [recentChanges]atomic.Pointer[recentChange] // a ring, by number
	subs    *xsync.Map[*Subscription, struct{}]
}

// recentChanges is how many changes ChangedSince knows, recentNames of how many
// services at most each.
const (
	recentChanges = 256
	recentNames   = 64
)

// recentChange is what changed as the count of changes came to number.
type recentChange struct {
	number uint64
	names  []string
}

func newChangeFeed() changeFeed {
	return changeFeed{subs: xsync.NewMap[*Subscription, struct{}]()}
}

// Changes implements View.
func (f *changeFeed) Changes() uint64 { return f.changes.Load() }

// ChangedSince implements View.
func (f *changeFeed) ChangedSince(since, until uint64, report func(service string)) bool {
	if until-since > recentChanges {
		return false
	}
	for n := since + 1; n <= until; n++ {
		c := f.recent[n%recentChanges].Load()
		if c == nil || c.number != n {
			return false
		}
		for _, name := range c.names {
			report(name)
		}
	}
	return true
}

// Subscribe implements View.
func (f *changeFeed) Subscribe() *Subscription {
	var s *Subscription
	s = newSubscription(func() { f.subs.Delete(s) })
	f.subs.Store(s, struct{}{})
	return s
}

// notify counts a change of these services and marks them at the subscribers. It
// is called after readers can see the change.
func (f *changeFeed) notify(names ...string) {
	n := f.changes.Load() + 1
	if len(names) <= recentNames {
		f.recent[n%recentChanges].Store(&recentChange{n, slices.Clone(names)})
	}
	f.changes.Store(n)
	for s := range f.subs.All() {
		s.mark(names)
	}
}
