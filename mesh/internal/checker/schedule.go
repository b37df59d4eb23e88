package checker

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"meshd/mesh/health"
)

// The pools (C7).
const (
	networkRuns = 64
	programRuns = 8
)

// firstWithin is within which time the first run of a check begins: all at once would
// be a thunder of their own after a restart of the node.
const firstWithin = 500 * time.Millisecond

// entry is one check of one task.
type entry struct {
	// What it is. Fixed.

	task  *task         // whose check it is
	check *health.Check // what is asked

	// When it is to be looked at. The scheduler's.

	tracker *health.Tracker // what follows from the answers
	run     time.Duration   // when the next run begins; unused for what is reported
	wake    time.Duration   // when it is looked at: run, or a deadline before it
	place   int             // in the heap; -1: not in it
	started time.Duration   // when the run that goes on began
	queued  time.Duration   // since when it waits for its pool
	running bool            // a run goes on
	waiting bool            // it waits for its pool
	removed bool            // it is gone; what still runs is of no interest
	cancel  func()          // ends the run; nil before it is begun

	// For people.

	last     health.Result // of the last run or report
	lastAt   time.Duration // when it ended
	took     time.Duration // how long it was
	changed  time.Duration // when the verdict was another one last
	runs     uint64        // that ended
	overruns uint64        // runs that were left out since one still went on
}

// scheduler says which checks are to be run. All times are monotonic; now never
// decreases. It is not safe for concurrent use.
type scheduler struct {
	rand  *rand.Rand // of the first run and of jitter
	heap  entries    // by wake
	pools [2]pool    // of networks and of programs
	begin []*entry   // runs to begin; whoever reads it empties it
	moved []*entry   // whose verdict changed; whoever reads it empties it
	stats Stats      // counters since the start
}

// pool bounds what runs at once.
type pool struct {
	limit, busy int
	queue       []*entry // in order; each once
}

func newScheduler(r *rand.Rand) *scheduler {
	return &scheduler{rand: r, pools: [2]pool{{limit: networkRuns}, {limit: programRuns}}}
}

// pool returns the pool of a check.
func (s *scheduler) pool(e *entry) *pool {
	if e.check.Definition.Type == health.Exec {
		return &s.pools[1]
	}
	return &s.pools[0]
}

// add takes a check in. Its tracker is new.
func (s *scheduler) add(now time.Duration, e *entry) {
	e.place, e.changed = -1, now
	e.run = now + time.Duration(s.rand.Int64N(int64(min(firstWithin, e.check.StartInterval)+1)))
	s.plan(e)
}

// plan puts the check where it belongs in the heap.
func (s *scheduler) plan(e *entry) {
	at, ok := e.tracker.Deadline()
	if !e.check.Reported() && (!ok || e.run < at) {
		at, ok = e.run, true
	}
	e.wake = at
	switch {
	case !ok && e.place >= 0:
		heap.Remove(&s.heap, e.place)
	case ok && e.place < 0:
		heap.Push(&s.heap, e)
	case ok:
		heap.Fix(&s.heap, e.place)
	}
}

// remove takes a check out. A run that goes on is ended, and nothing follows from it.
func (s *scheduler) remove(e *entry) {
	e.removed = true
	if e.place >= 0 {
		heap.Remove(&s.heap, e.place)
	}
	if e.cancel != nil {
		e.cancel()
	}
}

// next returns when tick is to be called.
func (s *scheduler) next() (at time.Duration, ok bool) {
	if len(s.heap) == 0 {
		return 0, false
	}
	return s.heap[0].wake, true
}

// tick looks at all checks whose time has come.
func (s *scheduler) tick(now time.Duration) {
	for len(s.heap) > 0 && s.heap[0].wake <= now {
		e := s.heap[0]
		s.step(now, e, func() bool { return e.tracker.Expire(now) })
		if !e.check.Reported() && e.run <= now {
			s.due(now, e)
		}
		s.plan(e)
	}
}

// step notes whether the verdict changes.
func (s *scheduler) step(now time.Duration, e *entry, f func() bool) {
	if f() {
		e.changed = now
		s.moved = append(s.moved, e)
	}
}

// due begins a run, or lets it wait for its pool. A run that still goes on is left alone,
// and so the next one does not begin.
func (s *scheduler) due(now time.Duration, e *entry) {
	switch p := s.pool(e); {
	case e.running:
		e.overruns++
		s.stats.Overruns++
	case e.waiting:
		if now-e.queued >= e.check.Interval { // this node cannot ask: that says nothing of the task
			s.stats.Starved++
			e.queued = now
			e.last, e.lastAt, e.took = health.Result{
				Outcome: health.Unknown, Output: "too many other checks run on this node",
			}, now, 0
			s.step(now, e, func() bool { return e.tracker.Step(now, health.Unknown) })
		}
	case p.busy < p.limit:
		s.start(now, e, p)
	default:
		e.waiting, e.queued = true, now
		p.queue = append(p.queue, e)
	}
	e.run = now + s.jitter(e.tracker.Wait())
}

// start begins a run.
func (s *scheduler) start(now time.Duration, e *entry, p *pool) {
	p.busy++
	e.running, e.waiting, e.started = true, false, now
	s.begin = append(s.begin, e)
}

// jitter is a duration, give or take a tenth.
func (s *scheduler) jitter(d time.Duration) time.Duration {
	return d - d/10 + time.Duration(s.rand.Int64N(int64(d)/5+1))
}

// finish takes the result of a run.
func (s *scheduler) finish(now time.Duration, e *entry, r health.Result) {
	p := s.pool(e)
	p.busy--
	e.running, e.cancel = false, nil
	if !e.removed {
		e.took = now - e.started
		s.answer(now, e, r)
		e.run = max(now, e.started+s.jitter(e.tracker.Wait()))
		s.plan(e)
	}
	for p.busy < p.limit && len(p.queue) > 0 {
		next := p.queue[0]
		p.queue[0] = nil
		if p.queue = p.queue[1:]; len(p.queue) == 0 {
			p.queue = nil
		}
		if !next.removed {
			s.start(now, next, p)
		}
	}
}

// answer takes what a run found or somebody reported.
func (s *scheduler) answer(now time.Duration, e *entry, r health.Result) {
	e.last, e.lastAt = r, now
	e.runs++
	s.stats.Results[r.Outcome]++
	s.step(now, e, func() bool { return e.tracker.Step(now, r.Outcome) })
}

// report takes an answer that was handed in.
func (s *scheduler) report(now time.Duration, e *entry, r health.Result) {
	e.took = 0
	s.answer(now, e, r)
	s.plan(e)
}

// entries is a heap by wake.
type entries []*entry

// Len implements heap.Interface.
func (h entries) Len() int { return len(h) }

// Less implements heap.Interface.
func (h entries) Less(i, j int) bool { return h[i].wake < h[j].wake }

// Swap implements heap.Interface.
func (h entries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *entries) Push(x any) {
	e := x.(*entry)
	e.place = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *entries) Pop() any {
	all := *h
	e := all[len(all)-1]
	all[len(all)-1] = nil
	*h, e.place = all[:len(all)-1], -1
	return e
}
