package state

import "sync"

// This file owns how a reader waits for changes.

// Subscription collects the names of changed services until they are drained.
// A slow reader costs memory for the distinct names only, never an event: the
// reader re-reads the view, so it can miss intermediate states, never the last.
type Subscription struct {
	ready chan struct{} // capacity 1: there is something to drain
	close func()

	mu    sync.Mutex // guards dirty
	dirty map[string]struct{}
}

func newSubscription(closeFn func()) *Subscription {
	return &Subscription{ready: make(chan struct{}, 1), close: closeFn, dirty: map[string]struct{}{}}
}

// Ready returns a channel that receives when Drain has something to return.
func (s *Subscription) Ready() <-chan struct{} { return s.ready }

// Drain returns the names of services that changed since the last call, in no
// order. The name "" stands for the network itself (its definition or its
// first sync).
func (s *Subscription) Drain() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.dirty))
	for n := range s.dirty {
		names = append(names, n)
	}
	clear(s.dirty)
	return names
}

// Close ends the subscription. Ready fires no more.
func (s *Subscription) Close() { s.close() }

func (s *Subscription) mark(names []string) {
	if len(names) == 0 {
		return
	}
	s.mu.Lock()
	for _, n := range names {
		s.dirty[n] = struct{}{}
	}
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}
