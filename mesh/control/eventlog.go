package control

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrClosed is returned by EventLog.Watch after Close.
var ErrClosed = errors.New("event log closed")

// EventLog keeps the latest events in memory and implements Backend.Watch over
// them. A slow reader delays no other: each reads the ring at its own pace, and
// gets an EventReset when what it would read next has been overwritten. It is
// safe for concurrent use.
type EventLog struct {
	boot string

	mu      sync.Mutex // guards everything that follows
	ring    []Event    // event i is at i % len(ring)
	last    uint64     // index of the newest event; 0: none yet
	changed chan struct{}
	closed  bool
}

// NewEventLog returns an empty log of the daemon's run boot that keeps size
// events, at least one.
func NewEventLog(boot string, size int) *EventLog {
	return &EventLog{boot: boot, ring: make([]Event, max(size, 1)), changed: make(chan struct{})}
}

// Append adds events with the next indexes. It does not block on readers. The
// caller sets everything but Index; the slices of an event belong to the log.
func (l *EventLog) Append(events ...Event) {
	if len(events) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.last++
		e.Index = l.last
		l.ring[l.last%uint64(len(l.ring))] = e
	}
	l.wake()
}

// Index returns the index of the newest event, 0 if there is none.
func (l *EventLog) Index() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Close ends all watches, now and later, with ErrClosed.
func (l *EventLog) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.wake()
	}
}

func (l *EventLog) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Watch implements Backend.Watch.
func (l *EventLog) Watch(ctx context.Context, req WatchRequest, emit func(Event) error) error {
	at, first := l.begin(req)
	if err := emit(first); err != nil {
		return err
	}
	for {
		batch, gap, changed, closed := l.after(at)
		if gap {
			first = l.reset("this reader fell behind")
			at = first.Index
			batch = []Event{first}
		}
		for _, e := range batch {
			at = e.Index
			if e.Network != "" && req.Network != "" && e.Network != req.Network {
				continue
			}
			if err := emit(e); err != nil {
				return err
			}
		}
		if closed {
			return ErrClosed
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin returns the position to read after and the first event of a stream.
func (l *EventLog) begin(req WatchRequest) (at uint64, first Event) {
	if req.Boot != "" && req.Boot != l.boot {
		first = l.reset("meshd was restarted since")
		return first.Index, first
	}
	l.mu.Lock()
	last, lost := l.last, l.lost(req.From)
	l.mu.Unlock()
	switch {
	case req.From == 0 && req.Boot == "": // from now on
		req.From = last
	case req.From > last:
		first = l.reset("the index is ahead of this meshd: it was restarted since")
		return first.Index, first
	case lost:
		first = l.reset("the events after that index are no longer kept")
		return first.Index, first
	}
	return req.From, Event{Type: EventStart, Index: req.From, Time: time.Now(), Boot: l.boot}
}

// lost reports whether the event after index at has been overwritten. The
// caller holds mu.
func (l *EventLog) lost(at uint64) bool { return l.last > at && l.last-at > uint64(len(l.ring)) }

func (l *EventLog) reset(why string) Event {
	return Event{Type: EventReset, Index: l.Index(), Time: time.Now(), Boot: l.boot, Detail: why +
		"; read the lists again"}
}

// after copies some events that follow index at. changed is closed at the next
// Append or Close.
func (l *EventLog) after(at uint64) (batch []Event, gap bool, changed <-chan struct{}, closed bool) {
	const most = 256
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost(at) {
		return nil, true, l.changed, l.closed
	}
	for i := at + 1; i <= l.last && len(batch) < most; i++ {
		batch = append(batch, l.ring[i%uint64(len(l.ring))])
	}
	return batch, false, l.changed, l.closed && at+uint64(len(batch)) == l.last
}
