package docker

import (
	"context"
	"errors"
	"sync"
	"time"

	"meshd/mesh/internal/notice"
	"meshd/mesh/source"
)

// watch is what Run's goroutine knows.
type watch struct {
	*Source
	ctx      context.Context // of Run
	messages chan any        // from those who work beside it
	work     sync.WaitGroup  // they

	// The engine.

	engine  *engine   // that answers; nil: none does
	away    string    // why none does
	since   time.Time // since when
	met     bool      // one has answered in this life
	blind   bool      // processes of containers are not visible from here
	lists   uint64    // that came
	shorted int       // containers that are too many

	// The containers.

	entries  map[string]*entry // by id
	queue    []*entry          // dirty ones, the oldest first
	inspects int               // looks under way
	handing  int               // handovers under way
	attaches int               // attachments under way

	// The first report (source.Sink.Synced).

	pending map[string]bool // containers of the first list that are not handed over yet; nil: no list came
	syncing bool            // Synced is under way
	synced  bool            // it was said
	syncAt  time.Time       // when it may be said again

	// What is said.

	changed bool           // Units is not what is known
	shownAt time.Time      // when it was made
	limiter notice.Limiter // of log lines about containers
}

// What those who work beside Run's goroutine report.
type (
	inspected struct { // a look
		e    *entry
		ends uint64 // as it was when the look began
		look *look
		err  error
	}
	handed struct { // a handover
		e        *entry
		version  uint64
		unit     bool          // the unit was handed over, not only a verdict
		tasks    []source.Task // of the unit
		replaced bool          // the sink has taken it
		waiting  []string      // why some of it waits there
		err      error
	}
	kept   struct{ e *entry } // a unit that cannot be looked at stays
	synced struct{ err error }
	ended  struct { // a process has ended
		e *entry
		p Process
	}
	attached struct { // an attachment
		e       *entry
		started time.Time
		err     error
	}
)

// Run hands over what it finds until ctx ends. It withdraws nothing at its end: the
// next life goes on.
func (s *Source) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{
		Source: s, ctx: ctx, messages: make(chan any), entries: map[string]*entry{}, since: time.Now(),
		away: "not asked yet",
	}
	defer func() {
		cancel()
		w.work.Wait()
		for _, e := range w.entries {
			w.unwatch(e)
		}
	}()
	w.work.Go(func() { (&session{src: s, tell: w.tell}).run(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-w.messages:
			w.take(m)
		case <-timer.C:
		}
		timer.Reset(w.begin(time.Now()))
	}
}

// tell sends a message to Run's goroutine. false: it has ended.
func (w *watch) tell(m any) bool {
	select {
	case w.messages <- m:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// take takes a message in.
func (w *watch) take(m any) {
	now := time.Now()
	switch m := m.(type) {
	case connected:
		w.engine = m.e
	case disconnected:
		w.lost(m.err, now)
	case happened:
		w.event(&m, now)
	case listed:
		w.found(now)
		w.list(&m, now)
	case inspected:
		w.inspects--
		w.inspected(&m, now)
	case handed:
		w.handing--
		w.handed(&m, now)
	case kept:
		delete(w.pending, m.e.id)
	case synced:
		w.syncing, w.synced = false, m.err == nil
		w.syncAt = now.Add(time.Second)
	case ended:
		w.processEnded(m.e, m.p, now)
	case attached:
		w.attaches--
		w.attached(&m, now)
	}
	w.changed = true
}

// lost says that the engine does not answer. What is known stays as it is.
func (w *watch) lost(err error, now time.Time) {
	optional := w.cfg.Optional && !w.met && errors.Is(err, errNoSocket)
	if w.engine != nil || w.away == "" || w.since.IsZero() {
		w.since = now
	}
	if w.away == "" && w.met {
		w.cfg.Log.Warn("the container engine does not answer; its containers stay as they are while their processes live",
			"error", err)
	}
	if w.away == "" {
		w.count(func(c *Stats) { c.Connected, c.Since = false, now })
	}
	w.engine, w.away = nil, "it does not answer"
	if err != nil {
		w.away = err.Error()
	}
	if optional {
		w.cfg.Condition("docker", "")
		return
	}
	w.cfg.Condition("docker", "docker: the engine does not answer since "+w.since.Format(time.RFC3339)+": "+w.away+
		"; its containers stay as they are while their processes live")
}

// found says that the engine answers.
func (w *watch) found(now time.Time) {
	if w.away != "" {
		w.cfg.Log.Info("the container engine answers", "socket", w.Stats().Socket)
		w.count(func(c *Stats) { c.Connected, c.Since = true, now })
		w.cfg.Condition("docker", "")
	}
	w.met, w.away, w.since = true, "", now
}

// mark asks for a look at a container, not before a time.
func (w *watch) mark(e *entry, at time.Time) {
	e.dirty = true
	if at.After(e.notBefore) {
		e.notBefore = at
	}
	if !e.queued {
		e.queued = true
		w.queue = append(w.queue, e)
	}
}

// begin begins what is due, and returns when to look again.
func (w *watch) begin(now time.Time) time.Duration {
	next := now.Add(time.Minute)
	w.beginInspects(now, &next)
	w.beginHandovers(now, &next)
	w.beginSynced(now, &next)
	w.show(now, &next)
	return max(next.Sub(now), time.Millisecond)
}

// earlier moves a time forward.
func earlier(next *time.Time, at time.Time) {
	if at.Before(*next) {
		*next = at
	}
}

// beginInspects looks at dirty containers.
func (w *watch) beginInspects(now time.Time, next *time.Time) {
	rest := w.queue[:0]
	for _, e := range w.queue {
		switch {
		case !e.dirty || w.entries[e.id] != e:
			e.queued = false
			continue
		case w.engine == nil || e.inspecting || w.inspects >= maxInspects:
		case now.Before(e.notBefore):
			earlier(next, e.notBefore)
		default:
			w.inspect(e, now)
			e.queued = false
			continue
		}
		rest = append(rest, e)
	}
	clear(w.queue[len(rest):])
	w.queue = rest
}

// inspect looks at a container, beside.
func (w *watch) inspect(e *entry, now time.Time) {
	e.dirty, e.inspecting, e.notBefore = false, true, now.Add(debounce)
	w.inspects++
	engine, ends := w.engine, e.ends
	w.work.Go(func() {
		l, err := engine.inspect(w.ctx, e.id)
		w.count(func(c *Stats) {
			if c.Inspects++; err != nil && !errors.Is(err, errNoContainer) {
				c.InspectFailures++
			}
		})
		w.tell(inspected{e, ends, l, err})
	})
}

// inspected takes in what a look found.
func (w *watch) inspected(m *inspected, now time.Time) {
	e := m.e
	e.inspecting = false
	if e.dirty && !e.queued { // a sign came meanwhile
		w.mark(e, e.notBefore)
	}
	switch {
	case errors.Is(m.err, errNoContainer):
		e.failures, e.trouble, e.d = 0, "", nil
		w.unwatch(e)
		w.replan(e)
		w.forget(e)
		return
	case m.err != nil:
		e.failures++
		e.trouble = "it cannot be looked at: " + m.err.Error()
		w.mark(e, now.Add(backoff(e.failures)))
		w.keep(e)
		return
	case m.ends != e.ends: // it may have ended since: look again
		w.mark(e, now)
		return
	}
	e.failures, e.trouble = 0, ""
	d := describe(e.id, m.look, w.cfg.NodeAddrs(), now)
	if !d.ours && d.refused == "" {
		w.forget(e)
		return
	}
	e.d = d
	if d.running && (len(d.tasks) > 0 || d.sandbox != nil) && !w.watchProcess(e, now) {
		return
	}
	if !d.running {
		w.unwatch(e)
	}
	w.replan(e)
	if e.version == e.done {
		delete(w.pending, e.id)
	}
}

// replan hands over what has changed.
func (w *watch) replan(e *entry) {
	if e.plan() && !e.byList.IsZero() && e.lastEvent.Before(e.byList.Add(-time.Second)) {
		w.count(func(c *Stats) { c.Missed++ })
	}
	e.byList = time.Time{}
}

// keep says that a unit is there and cannot be looked at, so that what a former life of
// the node stated of it stays.
func (w *watch) keep(e *entry) {
	if !w.pending[e.id] || w.synced {
		return
	}
	w.work.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, sinkLimit)
		defer cancel()
		if w.cfg.Sink.Keep(ctx, e.unit()) == nil {
			w.tell(kept{e})
		}
	})
}

// forget drops a container that is gone, once the sink knows.
func (w *watch) forget(e *entry) {
	delete(w.pending, e.id)
	if (e.d == nil || !e.d.ours) && e.idle() {
		w.unwatch(e)
		delete(w.entries, e.id)
	}
}

// beginSynced says once that everything was handed over.
func (w *watch) beginSynced(now time.Time, next *time.Time) {
	if w.pending == nil || len(w.pending) > 0 || w.synced || w.syncing {
		return
	}
	if now.Before(w.syncAt) {
		earlier(next, w.syncAt)
		return
	}
	w.syncing = true
	w.work.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, sinkLimit)
		defer cancel()
		w.tell(synced{w.cfg.Sink.Synced(ctx, source.Docker)})
	})
}
