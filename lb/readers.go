package lb

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"meshd/lb/hostfacts"
)

// ErrStopped is returned by questions to a balancer whose Run has ended.
var ErrStopped = errors.New("load balancer is stopped")

// HostFacts says what the host is and needs. Its method may be called from any
// goroutine and does not block.
type HostFacts interface {
	// Facts returns the facts, which must not be changed, and a channel that is
	// closed when they are not true any more.
	Facts() (*hostfacts.Facts, <-chan struct{})
}

// readerCopies are what goroutines other than Run's read without waiting for it.
// Run replaces the values, which are immutable.
type readerCopies struct {
	onRefused func(network string, conflicts []hostfacts.Conflict) // Config.OnRefused
	log       *slog.Logger

	counters atomic.Pointer[Counters]
	working  atomic.Pointer[map[string]bool]                 // networks all of whose pools are programmed
	pools    atomic.Pointer[map[netip.Prefix]Pool]           // pools that are planned
	refusals atomic.Pointer[map[string][]hostfacts.Conflict] // by network: what its pools conflict with
}

func newReaderCopies(onRefused func(string, []hostfacts.Conflict), log *slog.Logger) *readerCopies {
	c := &readerCopies{onRefused: onRefused, log: log}
	c.counters.Store(&Counters{})
	c.working.Store(&map[string]bool{})
	c.pools.Store(&map[netip.Prefix]Pool{})
	c.refusals.Store(&map[string][]hostfacts.Conflict{})
	return c
}

// setPools replaces what readers know of the pools, and tells operators which are
// refused. kernel is the table that the kernel holds; nil: no driver works.
func (c *readerCopies) setPools(p *planner, kernel *Table) {
	working := map[string]bool{}
	for name := range p.networks {
		if kernel != nil && p.programmed(name, kernel) {
			working[name] = true
		}
	}
	if !maps.Equal(working, *c.working.Load()) {
		c.working.Store(&working)
	}
	if pools := p.Desired().Pools; !maps.Equal(pools, *c.pools.Load()) {
		pools = maps.Clone(pools)
		c.pools.Store(&pools)
	}
	before, after := *c.refusals.Load(), p.Refused()
	if !maps.EqualFunc(before, after, slices.Equal) {
		after = maps.Clone(after)
		c.refusals.Store(&after)
		c.reportRefusals(before, after)
	}
}

// Counters returns the counters after the latest step. It does not block.
func (b *Balancer) Counters() Counters { return *b.readers.counters.Load() }

// Working reports whether VIPs of the network are served by this host's
// kernel: a driver works and the pool's helper state is in place. If not, vip
// services answer like dnsrr (R5). It does not block or allocate.
func (b *Balancer) Working(network string) bool { return (*b.readers.working.Load())[network] }

// Pools returns the pools that this host is to serve, those that are refused (L9)
// left out. The result must not be changed. It does not block.
func (b *Balancer) Pools() map[netip.Prefix]Pool { return *b.readers.pools.Load() }

// Refused returns, by network, what its pools conflict with on this host (L9). The
// result must not be changed. It does not block.
func (b *Balancer) Refused() map[string][]hostfacts.Conflict { return *b.readers.refusals.Load() }

// publish replaces the readers' copies.
func (b *Balancer) publish() {
	c := b.count
	c.Services, c.Desired = len(b.kernel.shadow.Services), len(b.planner.Desired().Services)
	c.Pending, c.Draining, c.Drains = len(b.reconciler.failed), b.drains.backends, b.drains.ended
	c.Conflicts, c.Ready, c.Driver = b.planner.conflicts, b.kernel.ready, b.kernel.driverName()
	c.Refused, c.Waiting = len(b.planner.Refused()), len(b.planner.waiting)
	if c.LastError = b.failures.text; c.LastError != "" {
		c.LastErrorAge = time.Since(b.failures.at)
	}
	b.readers.counters.Store(&c)
	var programmed *Table
	if b.kernel.ready {
		programmed = b.kernel.shadow
	}
	b.readers.setPools(b.planner, programmed)
}

// reportRefusals tells operators which networks are not served any more and why,
// and which are served again.
func (c *readerCopies) reportRefusals(before, after map[string][]hostfacts.Conflict) {
	for network, conflicts := range after {
		if !slices.Equal(before[network], conflicts) {
			c.log.Warn("pool is not served by this host; vip services of the network are answered with their tasks",
				slog.String("network", network), slog.String("against", FormatConflicts(conflicts)))
			c.onRefused(network, conflicts)
		}
	}
	for network := range before {
		if len(after[network]) == 0 {
			c.log.Info("nothing conflicts with the network's pools any more", slog.String("network", network))
			c.onRefused(network, nil)
		}
	}
}

// maxFormattedConflicts bounds a line of a log or a status.
const maxFormattedConflicts = 3

// FormatConflicts formats conflicts for people, as "pool 10.77.0.0/16: route
// 10.77.0.0/24 of device eth0; address 10.77.0.1 of device eth0".
func FormatConflicts(conflicts []hostfacts.Conflict) string {
	var text []string
	for i, c := range conflicts {
		if i == maxFormattedConflicts {
			text = append(text, "and more")
			break
		}
		if i > 0 && c.Pool == conflicts[i-1].Pool {
			text = append(text, c.What)
			continue
		}
		text = append(text, c.String())
	}
	return strings.Join(text, "; ")
}

// ask runs f in the balancer's goroutine, with the context of Run.
func runInLoop[T any](ctx context.Context, b *Balancer, f func(context.Context) T) (T, error) {
	answer := make(chan T, 1)
	var none T
	select {
	case b.requests <- func(run context.Context) { answer <- f(run) }:
	case <-b.done:
		return none, ErrStopped
	case <-ctx.Done():
		return none, ctx.Err()
	}
	select {
	case v := <-answer:
		return v, nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Applied reports whether the kernel has been given all that the view of a network
// says by now, or there is nothing that it could be given. What the kernel refused
// counts as given: Status shows it. The error is ErrStopped or that of ctx.
func (b *Balancer) Applied(ctx context.Context, network string) (bool, error) {
	return runInLoop(ctx, b, func(context.Context) bool {
		if b.held || b.count.Unsupported {
			return true
		}
		view := b.cfg.Source.View(network)
		if view == nil || !b.cfg.Only(network) {
			return true
		}
		if !b.feed.follows(network, view) {
			return false // Run is about to follow it
		}
		b.reconciler.collect()
		if b.reconciler.pending() {
			b.clock.setNoLater(alarmApply, b.nextApply())
			return false
		}
		return b.kernel.ready
	})
}

// Usage returns the driver's counters of all services in the kernel; nil without a
// driver. What they mean is documented at the driver. The error is the driver's,
// ErrStopped or that of ctx.
func (b *Balancer) Usage(ctx context.Context) (map[Key]Usage, error) {
	type answer struct {
		usage map[Key]Usage
		err   error
	}
	a, err := runInLoop(ctx, b, func(run context.Context) (a answer) {
		if b.kernel.ready {
			a.usage, a.err = b.kernel.driver.Usage(run, b.kernel.shadow.Keys())
		}
		return a
	})
	return a.usage, errors.Join(err, a.err)
}

// Status returns the state of the moment. It waits for a running Apply. The
// services in it are shared and immutable. The error is ErrStopped or that of
// ctx.
func (b *Balancer) Status(ctx context.Context) (Status, error) {
	return runInLoop(ctx, b, func(context.Context) Status {
		b.publish()
		return Status{
			Driver: b.kernel.driverName(), Ready: b.kernel.ready, Refused: slices.Clone(b.choice.refused),
			Error: b.failures.text, ErrorAt: b.failures.at,
			Pools: poolStatus(b.planner, b.kernel.shadow),
			Services: serviceComparison{
				desired: b.planner.Desired(), actual: b.kernel.shadow, failed: b.reconciler.failed,
				drains: &b.drains, kernel: &b.kernel,
			}.all(),
			Conflicts: b.planner.Conflicts(), Counters: b.Counters(),
		}
	})
}
