package checker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"meshd/mesh/source"
	"meshd/state"
)

// Of verdicts on their way to the sink.
const (
	stateTimeout = 10 * time.Second // of one call
	stateRetry   = time.Second      // after one that failed
)

// stater hands verdicts to the sink. Of each task the last one counts, so that what waits
// is bounded by the tasks.
type stater struct {
	sink source.Sink
	log  *slog.Logger
	news chan struct{} // its capacity is 1

	mu      sync.Mutex // guards waiting
	waiting map[source.Ref]state.Health

	stated, failures atomic.Uint64
}

func newStater(sink source.Sink, log *slog.Logger) *stater {
	return &stater{sink: sink, log: log, news: make(chan struct{}, 1), waiting: map[source.Ref]state.Health{}}
}

// offer queues verdicts. It waits for nothing.
func (s *stater) offer(verdicts []source.Verdict) {
	if len(verdicts) == 0 {
		return
	}
	s.mu.Lock()
	for _, v := range verdicts {
		s.waiting[v.Ref] = v.Health
	}
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// run states what is offered until ctx ends.
func (s *stater) run(ctx context.Context) {
	for ok := true; ; {
		retry := time.Duration(-1)
		if !ok {
			retry = stateRetry
		}
		if !s.wait(ctx, retry) {
			return
		}
		before := ok
		err := s.flush(ctx)
		if ok = err == nil; ok != before && ctx.Err() == nil {
			if ok {
				s.log.Info("health verdicts are stated again")
			} else {
				s.log.Error("health verdicts cannot be stated; they are tried again", "error", err)
			}
		}
	}
}

// wait waits for an offer, and for the time to try again if it is not negative. It
// returns false when ctx has ended.
func (s *stater) wait(ctx context.Context, retry time.Duration) bool {
	if retry < 0 {
		select {
		case <-ctx.Done():
			return false
		case <-s.news:
			return true
		}
	}
	t := time.NewTimer(retry)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// flush states everything that waits.
func (s *stater) flush(ctx context.Context) error {
	for {
		batch := s.take()
		if len(batch) == 0 {
			return nil
		}
		one, cancel := context.WithTimeout(ctx, stateTimeout)
		err := s.sink.SetHealth(one, batch)
		cancel()
		if err != nil {
			s.failures.Add(1)
			s.putBack(batch)
			return err
		}
		s.stated.Add(uint64(len(batch)))
	}
}

// take takes as many verdicts as one call may have.
func (s *stater) take() (batch []source.Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, h := range s.waiting {
		if len(batch) == source.MaxVerdicts {
			break
		}
		batch = append(batch, source.Verdict{Ref: ref, Health: h})
		delete(s.waiting, ref)
	}
	return batch
}

// putBack queues what could not be stated, but for what has a newer verdict.
func (s *stater) putBack(batch []source.Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range batch {
		if _, newer := s.waiting[v.Ref]; !newer {
			s.waiting[v.Ref] = v.Health
		}
	}
}
