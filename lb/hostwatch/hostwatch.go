// Package hostwatch keeps the facts about a network namespace up to date (L9):
// its addresses and routes from the kernel, and what else its owner says that
// the host needs.
package hostwatch

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"meshd/lb/hostfacts"
)

// Kernel is what a Watcher asks. Read is called by one goroutine at a time,
// Wait by another; Close ends a Wait.
type Kernel interface {
	// Read returns addresses and routes as they are now. Points are the
	// gateways of default routes.
	Read() (hostfacts.Facts, error)
	// Wait returns when something may have changed since it last returned; ours:
	// something that balancing made there may be gone. An error means that it is
	// not known: changes may have been missed.
	Wait() (ours bool, err error)
	// Close releases what the kernel gave.
	Close() error
}

// The times of a Watcher.
const (
	gatherTime = 20 * time.Millisecond // changes come in groups
	resync     = 30 * time.Second      // the kernel is asked though it told nothing
	retryMin   = time.Second           // after an error; opening the kernel twice as long each time, up to resync
	trustedFor = time.Minute           // what was read is, while nothing can be read
	restFactor = 10                    // where reading takes long, it takes one part in so many of the time
)

// Watcher holds the facts of one namespace. Run keeps them up to date; the
// other methods are safe for concurrent use.
type Watcher struct {
	open          func() (Kernel, error)
	kernel        Kernel // nil: it could not be opened yet
	log           *slog.Logger
	routesChanged chan struct{} // capacity 1

	mu       sync.Mutex // guards what follows
	read     hostfacts.Facts
	allowed  []netip.Prefix
	points   []hostfacts.Point
	facts    *hostfacts.Facts
	changed  chan struct{} // closed when facts is replaced
	lastRead time.Time     // the kernel answered last
	count    Counters
}

// Counters are running totals of a watcher.
type Counters struct {
	Reads   uint64 // of addresses and routes
	Errors  uint64 // readings that failed, and openings
	Missed  uint64 // times that the kernel could not tell what changed
	Changes uint64 // times that the facts were others than before
}

// New returns a watcher that has asked the kernel once. Run closes what open
// returns. What cannot be opened is tried again by Run; until then the facts
// say that nothing is known.
func New(open func() (Kernel, error), log *slog.Logger) *Watcher {
	w := &Watcher{
		open: open, log: log, routesChanged: make(chan struct{}, 1), facts: &hostfacts.Facts{},
		changed: make(chan struct{}),
	}
	if err := w.connect(); err != nil {
		log.Warn("the host's addresses and routes cannot be read: no VIP pool is served until they can", "error", err)
	}
	return w
}

// connect opens the kernel and asks it.
func (w *Watcher) connect() error {
	kernel, err := w.open()
	if err != nil {
		w.update(func() {
			w.count.Errors++
			w.read = hostfacts.Facts{Unknown: err.Error()}
		})
		return err
	}
	w.kernel = kernel
	w.readKernel()
	return nil
}

// Facts returns the facts of the moment, which must not be changed, and a
// channel that is closed when there are others.
func (w *Watcher) Facts() (*hostfacts.Facts, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.facts, w.changed
}

// Counters returns the totals of the moment.
func (w *Watcher) Counters() Counters {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// Touched is sent to when something that balancing made in the namespace may be
// gone: routes, routing rules. There is one receiver.
func (w *Watcher) RoutesChanged() <-chan struct{} { return w.routesChanged }

// Require says what ranges may hold pools (none: the default) and what else
// must stay reachable, in place of what it was told before.
func (w *Watcher) Require(allowed []netip.Prefix, points []hostfacts.Point) {
	w.update(func() { w.allowed, w.points = allowed, points })
}

// update changes what is known, and publishes the facts if they are others.
func (w *Watcher) update(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	now := w.read.With(w.allowed, w.points...)
	if now.Equal(w.facts) {
		return
	}
	w.count.Changes++
	w.facts = &now
	close(w.changed)
	w.changed = make(chan struct{})
}

// ask reads the kernel. What was read before stays true for a while if it fails
// after a success, since the host has not vanished; but a host that nobody can
// look at any more is not known.
func (w *Watcher) readKernel() {
	facts, err := w.kernel.Read()
	w.update(func() {
		w.count.Reads++
		if err == nil {
			w.read, w.lastRead = facts, time.Now()
			return
		}
		w.count.Errors++
		if w.lastRead.IsZero() || time.Since(w.lastRead) > trustedFor {
			w.read = hostfacts.Facts{Unknown: err.Error()}
		}
	})
	if err != nil {
		w.log.Debug("addresses and routes could not be read", "error", err)
	}
}

// Run keeps the facts up to date until ctx ends, and closes the kernel. It may
// be called once.
func (w *Watcher) Run(ctx context.Context) error {
	for wait := retryMin; w.kernel == nil; wait = min(2*wait, resync) {
		if !waitFor(ctx, nil, wait) {
			return nil
		}
		if w.connect() == nil {
			w.log.Info("the host's addresses and routes can be read")
		}
	}
	told, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		w.listen(ctx, told)
	}()
	defer func() { <-ended }()
	defer w.kernel.Close()
	w.readKernel() // something may have changed since New
	for {
		begin := time.Now()
		if !waitFor(ctx, nil, gatherTime) {
			return nil
		}
		w.readKernel()
		if !waitFor(ctx, nil, restFactor*(time.Since(begin)-gatherTime)) || !waitFor(ctx, told, resync) {
			return nil
		}
	}
}

// Close releases the kernel of a watcher that is never run.
func (w *Watcher) Close() error {
	if w.kernel == nil {
		return nil
	}
	return w.kernel.Close()
}

// listen passes on that the kernel told something.
func (w *Watcher) listen(ctx context.Context, told chan<- struct{}) {
	for ctx.Err() == nil {
		ours, err := w.kernel.Wait()
		if err != nil {
			w.mu.Lock()
			w.count.Missed++
			w.mu.Unlock()
			if !waitFor(ctx, nil, retryMin) {
				return
			}
		}
		notify(told)
		if ours || err != nil {
			notify(w.routesChanged)
		}
	}
}

// signal tells whoever is to receive, once for all that it has not received.
func notify(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// pause waits for a time or until it is told something. It reports whether ctx
// goes on.
func waitFor(ctx context.Context, told <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-told:
	case <-timer.C:
	}
	return ctx.Err() == nil
}
