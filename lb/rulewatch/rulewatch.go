// Package rulewatch announces what others write to the nftables ruleset of a network
// namespace (rule L15 of docs/DESIGN.md). The kernel has a message for the end of every
// transaction, with the netlink port of the socket that wrote it; transactions of this
// process are told from others' by that.
package rulewatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Kernel is the subscription to one namespace's ruleset. Wait is called by one
// goroutine; Close ends a Wait.
type Kernel interface {
	// Wait returns when others have committed transactions since it last returned,
	// with their number, at most batch; or with 0 if another sender than the kernel
	// writes to the socket. The error is ErrMissed, or ends the subscription.
	Wait() (others int, err error)
	// Listen leaves the group of the kernel's messages, or joins it again. It is safe
	// for concurrent use.
	Listen(on bool) error
	// Close ends the subscription.
	Close() error
}

// ErrMissed is returned by Kernel.Wait if there were more transactions than the
// socket can hold, so that something may have changed.
var ErrMissed = errors.New("transactions were missed")

// The times of a Watcher.
const (
	gatherTime = 10 * time.Millisecond // transactions come in groups: the first is announced at once, the others together
	retryMin   = time.Second           // after a failure; twice as long each time, up to retryMax
	retryMax   = 30 * time.Second
	batch      = 64 // messages that are read in one go
)

// Watcher is subscribed to one namespace's ruleset. Run keeps it subscribed; the other
// methods are safe for concurrent use.
type Watcher struct {
	open func(own func(port uint32) bool) (Kernel, error)
	log  *slog.Logger

	mu        sync.Mutex          // guards what follows
	kernel    Kernel              // nil while there is no subscription
	err       error               // why there is no subscription; nil: there is one
	ports     map[uint32]struct{} // netlink ports of this process, by SetOwnPort
	receivers []chan struct{}     // by Subscribe; capacity 1 each
	count     Counters            // handed out by Counters
}

// Counters are running totals of a watcher.
type Counters struct {
	Heard  uint64 // transactions of others
	Missed uint64 // times that there were more than the socket can hold
	Losses uint64 // subscriptions that failed or ended
}

// New returns a watcher that is subscribed if that is possible; if not, Run tries
// again. open gets a function that reports whether a netlink port was set by
// SetOwnPort.
func New(open func(own func(port uint32) bool) (Kernel, error), log *slog.Logger) *Watcher {
	w := &Watcher{open: open, log: log, ports: map[uint32]struct{}{}}
	w.connect()
	return w
}

// SetOwnPort says that this process writes to the ruleset from a netlink port, or, if
// not open, that it does not any more. Transactions from such a port are not
// announced. The kernel gives a port to one socket at a time, and writes it into the
// message, so that no other process can use it.
func (w *Watcher) SetOwnPort(port uint32, open bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if open {
		w.ports[port] = struct{}{}
		return
	}
	delete(w.ports, port)
}

// ownsPort reports whether a netlink port is one of this process.
func (w *Watcher) ownsPort(port uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ours := w.ports[port]
	return ours
}

// RunUnsubscribed calls write, which commits at most one transaction, without a
// subscription, because for subscribers the kernel makes a message of every element.
// number returns that of the ruleset, which shows whether others wrote meanwhile: then
// receivers are notified. The error is that of write.
func (w *Watcher) RunUnsubscribed(number func() (uint32, error), write func() error) error {
	w.mu.Lock()
	kernel := w.kernel
	w.mu.Unlock()
	before, err := number()
	if kernel == nil || err != nil || kernel.Listen(false) != nil {
		return write()
	}
	failed := write()
	if kernel.Listen(true) != nil {
		_ = kernel.Close() // then Run subscribes anew
	}
	after, err := number()
	others := after - before
	if others > 0 && failed == nil { // one of them is that of write
		others--
	}
	if err != nil || others > 0 {
		w.notify()
	}
	return failed
}

// Subscribe returns a channel that is sent to when others may have written to the
// ruleset, once for all that was not received, and when Err changes. Each call makes a
// channel of its own, for one receiver. It must be called before Run.
func (w *Watcher) Subscribe() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan struct{}, 1)
	w.receivers = append(w.receivers, c)
	return c
}

// Err says why changes are not announced; nil: they are.
func (w *Watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Counters returns the current totals.
func (w *Watcher) Counters() Counters {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// connect subscribes.
func (w *Watcher) connect() {
	kernel, err := w.open(w.ownsPort)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kernel, w.err = kernel, err
	if err != nil {
		w.kernel = nil
		w.count.Losses++
	}
}

// Run announces changes until ctx ends, and unsubscribes. It may be called once. It
// returns nil: what fails is tried again, and Err says so.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.Close()
	for wait := retryMin; ctx.Err() == nil; wait = min(2*wait, retryMax) {
		if w.Err() != nil {
			if !waitFor(ctx, wait) {
				return nil
			}
			if w.connect(); w.Err() != nil {
				continue
			}
			w.log.Info("changes of the nftables ruleset are heard again")
			w.notify() // others may have written meanwhile
		}
		if w.receive(ctx) {
			wait = retryMin / 2
		}
	}
	return nil
}

// receive announces changes until the subscription or ctx ends, and reports whether
// there were any.
func (w *Watcher) receive(ctx context.Context) (heard bool) {
	w.mu.Lock()
	kernel := w.kernel
	w.mu.Unlock()
	defer context.AfterFunc(ctx, func() { _ = w.Close() })()
	for {
		others, err := kernel.Wait()
		if ctx.Err() != nil {
			return heard
		}
		missed := errors.Is(err, ErrMissed)
		if err != nil && !missed {
			w.reportLoss(err)
			return heard
		}
		if others == 0 && !missed {
			if !waitFor(ctx, gatherTime) {
				return heard
			}
			continue
		}
		heard = true
		w.mu.Lock()
		w.count.Heard += uint64(others)
		if missed {
			w.count.Missed++
		}
		w.mu.Unlock()
		w.notify()
		if !waitFor(ctx, gatherTime) {
			return heard
		}
	}
}

// reportLoss ends a subscription that does not work any more.
func (w *Watcher) reportLoss(err error) {
	_ = w.Close()
	w.mu.Lock()
	w.err = err
	w.count.Losses++
	w.mu.Unlock()
	w.log.Warn("changes of the nftables ruleset are not heard any more; they are asked for", "error", err)
	w.notify()
}

// notify sends to all receivers that have received what was sent before.
func (w *Watcher) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.receivers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Close ends the subscription of a watcher that does not run.
func (w *Watcher) Close() error {
	w.mu.Lock()
	kernel := w.kernel
	w.kernel = nil
	w.mu.Unlock()
	if kernel == nil {
		return nil
	}
	return kernel.Close()
}

// waitFor waits. It reports whether ctx has not ended.
func waitFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return ctx.Err() == nil
}
