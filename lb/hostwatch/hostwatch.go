// Package hostwatch keeps the facts about a network namespace up to date (rule L9 of
// docs/DESIGN.md): its addresses and routes, which it reads from the kernel when that
// announces a change, and what the node says that it needs besides.
package hostwatch

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"meshd/lb/hostfacts"
)

// Kernel is what a Watcher reads. Read is called by one goroutine at a time, Wait by
// another; Close ends a Wait.
type Kernel interface {
	// Read returns addresses and routes as they are now. Points are the
	// gateways of default routes.
	Read() (hostfacts.Facts, error)
	// Wait returns when something may have changed since it last returned; ours reports
	// whether routes or routing rules of ours may be gone. An error means that changes
	// may have been missed.
	Wait() (ours bool, err error)
	// Close releases the sockets.
	Close() error
}

// The times of a Watcher.
const (
	gatherTime = 20 * time.Millisecond // changes come in groups, and are read together
	resync     = 30 * time.Second      // the kernel is read even if it announced nothing
	retryMin   = time.Second           // after an error; doubled up to resync while the kernel cannot be opened
	trustedFor = time.Minute           // how long the facts count while nothing can be read
	restFactor = 10                    // reading that took t is followed by none for restFactor times t
)

// Watcher holds the facts of one namespace. Run keeps them up to date; the
// other methods are safe for concurrent use.
type Watcher struct {
	open          func() (Kernel, error) // by New
	log           *slog.Logger           // for operators
	routesChanged chan struct{}          // capacity 1; for RoutesChanged
	kernel        Kernel                 // nil: it could not be opened yet. Belongs to New, then to Run

	mu sync.Mutex // guards what follows

	// What is known.

	read     hostfacts.Facts   // what the kernel answered last
	lastRead time.Time         // when the kernel answered last; zero: never
	allowed  []netip.Prefix    // by Require: the ranges in which pools may lie
	points   []hostfacts.Point // by Require: what else must stay reachable

	// What follows from it. Invariant: facts is read with allowed and points.

	facts   *hostfacts.Facts // immutable
	changed chan struct{}    // closed when facts is replaced
	count   Counters         // handed out by Counters
}

// Counters are running totals of a watcher.
type Counters struct {
	Reads   uint64 // of addresses and routes
	Errors  uint64 // failures to read or to open the kernel
	Missed  uint64 // times that announcements were lost
	Changes uint64 // times that the facts differed from before
}

// New returns a watcher that has read the kernel once. Run closes what open returns.
// If it cannot be opened, Run tries again, and until then the facts say that the host
// is not known.
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

// connect opens the kernel and reads it.
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

// Facts returns the current facts, which must not be changed, and a channel that is
// closed when they are replaced.
func (w *Watcher) Facts() (*hostfacts.Facts, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.facts, w.changed
}

// Counters returns the current totals.
func (w *Watcher) Counters() Counters {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// RoutesChanged returns a channel that is sent to when routes or routing rules of ours
// may be gone, once for all changes since it was last received from. There is one
// receiver.
func (w *Watcher) RoutesChanged() <-chan struct{} { return w.routesChanged }

// Require sets the ranges in which pools may lie (none: the default) and what else
// must stay reachable. It replaces what was set before.
func (w *Watcher) Require(allowed []netip.Prefix, points []hostfacts.Point) {
	w.update(func() { w.allowed, w.points = allowed, points })
}

// update changes what is known, and publishes the facts if they differ.
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

// readKernel reads the kernel. If that fails after a success, the facts count for
// trustedFor, since the host has hardly changed; after that it is not known.
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
		w.log.Debug("the host's addresses and routes could not be read", "error", err)
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
	announced, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		w.listen(ctx, announced)
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
		if !waitFor(ctx, nil, restFactor*(time.Since(begin)-gatherTime)) || !waitFor(ctx, announced, resync) {
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

// listen passes on what the kernel announces, until ctx ends.
func (w *Watcher) listen(ctx context.Context, announced chan<- struct{}) {
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
		notify(announced)
		if ours || err != nil {
			notify(w.routesChanged)
		}
	}
}

// notify sends, unless the receiver has not received what was sent before.
func notify(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// waitFor waits for a time or until it receives. It reports whether ctx has not ended.
func waitFor(ctx context.Context, announced <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-announced:
	case <-timer.C:
	}
	return ctx.Err() == nil
}
