package docker

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// What a session tells the source. It never waits for anything but the source.
type (
	connected    struct{ e *engine } // an engine answers; what came before is over
	disconnected struct{ err error } // it does not any more, or still not
	happened     struct {            // an event
		message events.Message
		old     bool // it was before the engine was asked
	}
	listed struct { // all containers that run
		items  []container.Summary
		begun  time.Time
		opened bool // it is the first list of the session
	}
)

// session talks to the engine, and connects again for ever.
type session struct {
	src  *Source
	tell func(m any) bool // false: the source ends
	seen time.Time        // of the newest event
}

// run connects until ctx ends.
func (s *session) run(ctx context.Context) {
	delay := firstDelay
	for ctx.Err() == nil {
		e, path, err := dial(ctx, &s.src.cfg)
		if err == nil {
			s.src.count(func(c *Stats) { c.Socket, c.Connections = path, c.Connections+1 })
			var worked bool
			worked, err = s.serve(ctx, e)
			_ = e.close() // nothing is waiting for it
			if worked {
				delay = firstDelay
			}
		}
		if ctx.Err() != nil || !s.tell(disconnected{err}) {
			return
		}
		// Full jitter: many nodes may have lost their engines at once.
		if !pause(ctx, time.Duration(rand.Int64N(int64(delay)))+time.Millisecond) {
			return
		}
		delay = min(2*delay, lastDelay)
	}
}

// pause waits and reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// serve reads events, lists and pings until something fails. worked says that a list
// came.
func (s *session) serve(ctx context.Context, e *engine) (worked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begun := time.Now()
	since := begun
	if !s.seen.IsZero() && s.seen.Before(begun) {
		since = s.seen
	}
	if !s.tell(connected{e}) {
		return false, ctx.Err()
	}
	stream := e.events(ctx, since.Add(-sinceBefore))
	lists, pings := s.repeat(ctx, e)
	for {
		select {
		case m := <-stream.Messages:
			at := eventTime(&m)
			if at.After(s.seen) && at.Before(time.Now().Add(time.Minute)) {
				s.seen = at
			}
			s.src.count(func(c *Stats) { c.Events++ })
			if !s.tell(happened{m, !at.After(begun)}) {
				return worked, ctx.Err()
			}
		case err := <-stream.Err:
			return worked, err
		case l := <-lists:
			if l.err != nil {
				return worked, l.err
			}
			l.opened = !worked
			worked = true
			if !s.tell(l.listed) {
				return worked, ctx.Err()
			}
		case err := <-pings:
			return worked, err
		case <-ctx.Done():
			return worked, ctx.Err()
		}
	}
}

// listing is a list or its failure.
type listing struct {
	listed
	err error
}

// repeat lists the containers and pings the engine, each in a goroutine of its own, since
// an engine that hangs must not keep its events from being read. Both end with ctx.
func (s *session) repeat(ctx context.Context, e *engine) (<-chan listing, <-chan error) {
	lists, pings := make(chan listing), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			l := listing{listed: listed{begun: time.Now()}}
			l.items, l.err = e.list(ctx)
			s.src.count(func(c *Stats) {
				if c.Lists++; l.err != nil {
					c.ListFailures++
				}
			})
			select {
			case lists <- l:
			case <-ctx.Done():
				return
			}
			wait := secondList
			if n > 0 {
				wait = listEvery*8/10 + rand.N(listEvery*4/10)
			}
			if l.err != nil || !pause(ctx, wait) {
				return
			}
		}
	}()
	go func() {
		for misses := 0; pause(ctx, pingEvery); {
			err := e.ping(ctx)
			if misses++; err == nil {
				misses = 0
			}
			if misses >= maxMisses {
				pings <- err
				return
			}
		}
	}()
	return lists, pings
}

// eventTime returns when an event was, by the engine's clock: that of this host.
func eventTime(m *events.Message) time.Time {
	if m.TimeNano != 0 {
		return time.Unix(0, m.TimeNano)
	}
	return time.Unix(m.Time, 0)
}
