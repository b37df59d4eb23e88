// Package sourcetest has a sink in memory, for tests of sources and of checks.
package sourcetest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"meshd/mesh/source"
	"meshd/state"
)

// Sink keeps what sources hand over. It registers everything that control.AddTask
// allows, and derives no ids: an empty one stays empty. The zero value is empty. It is
// safe for concurrent use.
type Sink struct {
	// Refuse, if set, is asked before a unit is replaced; its error is Replace's. It is
	// set before the sink is used.
	Refuse func(unit source.Unit, tasks []source.Task) error

	mu     sync.Mutex // guards what follows
	units  map[source.Unit][]source.Task
	seen   map[source.Unit]bool // in this life
	synced map[string]int
	health map[source.Ref]state.Health
	calls  int
}

var _ source.Sink = (*Sink)(nil)

// Replace implements source.Sink.
func (s *Sink) Replace(_ context.Context, unit source.Unit, tasks []source.Task) ([]source.Outcome, error) {
	if err := unit.Check(); err != nil {
		return nil, err
	}
	out := make([]source.Outcome, len(tasks))
	for i := range tasks {
		if _, err := tasks[i].Parse(); err != nil {
			return nil, err
		}
		if err := tasks[i].Check(); err != nil {
			return nil, err
		}
		out[i] = source.Outcome{ID: tasks[i].ID, Change: source.Added}
	}
	if s.Refuse != nil {
		if err := s.Refuse(unit, tasks); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	s.calls++
	s.seen[unit] = true
	if s.units[unit] = slices.Clone(tasks); len(tasks) == 0 {
		delete(s.units, unit)
	}
	return out, nil
}

// Keep implements source.Sink.
func (s *Sink) Keep(_ context.Context, unit source.Unit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	s.seen[unit] = true
	return unit.Check()
}

// Synced implements source.Sink.
func (s *Sink) Synced(_ context.Context, origin string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	s.synced[origin]++
	maps.DeleteFunc(s.units, func(u source.Unit, _ []source.Task) bool { return u.Origin == origin && !s.seen[u] })
	return source.CheckOrigin(origin)
}

// SetHealth implements source.Sink.
func (s *Sink) SetHealth(_ context.Context, verdicts []source.Verdict) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	for _, v := range verdicts {
		s.health[v.Ref] = v.Health
	}
	return nil
}

func (s *Sink) make() {
	if s.units == nil {
		s.units, s.seen = map[source.Unit][]source.Task{}, map[source.Unit]bool{}
		s.synced, s.health = map[string]int{}, map[source.Ref]state.Health{}
	}
}

// Hold gives the sink a unit of a former life: it goes with Synced, unless it is handed
// over or kept before.
func (s *Sink) Hold(unit source.Unit, tasks ...source.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	s.units[unit] = tasks
}

// Units returns the units by name, with their tasks. The caller owns the map.
func (s *Sink) Units() map[source.Unit][]source.Task {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.units)
}

// Health returns the last verdict on a task.
func (s *Sink) Health(ref source.Ref) (h state.Health, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, known = s.health[ref]
	return h, known
}

// Calls returns how often a unit was replaced, and how often an origin was synced.
func (s *Sink) Calls(origin string) (replaced, synced int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls, s.synced[origin]
}
