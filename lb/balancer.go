package lb

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"meshd/lb/hostfacts"
)

// Balancer keeps the load balancing of one network namespace equal to what the
// views say. Run is its only goroutine, and owns every part below but the readers'
// copies. The exported methods are safe for concurrent use: they read those copies,
// or have Run answer between two steps.
//
// Each part holds its own state and can be tested alone. The balancer wires them:
// it decides when something is due, and passes on what one part found to the next.
type Balancer struct {
	cfg Config // with defaults; does not change

	// How other goroutines reach Run.

	requests chan func(context.Context) // Run calls these between two steps
	done     chan struct{}              // closed when Run has returned
	readers  *readerCopies              // written by Run after each step

	// When something is due.

	clock     alarmClock // at most one time for each thing to do
	started   time.Time  // of Run
	restUntil time.Time  // until then changes of the views gather (L11)
	held      bool       // by Hold: the kernel is left as it is until Run ends

	// From the views to the kernel.

	feed       viewFeed   // plans what the views announce
	planner    *planner   // holds the plan
	kernel     kernel     // the driver that works, and the table that it left
	reconciler reconciler // makes the kernel equal to the plan
	drains     drains     // backends that wait for their connections to end

	// Which driver programs the kernel, and what others left there.

	choice     driverChoice // finds the driver that works
	retirement retirement   // ends what the others left

	// Whether the kernel still holds what was written to it.

	triggers triggers // says when somebody else may have changed it
	auditor  auditor  // compares and repairs

	// What operators see.

	failures failures // the latest error, and how long to wait after it
	count    Counters // running totals; publish fills in the gauges
}

// New returns a balancer that does nothing before Run. The error names the
// setting that is missing.
func New(cfg Config) (*Balancer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b := &Balancer{
		cfg: cfg, requests: make(chan func(context.Context)), done: make(chan struct{}),
		planner: newPlanner(cfg.Node),
	}
	b.feed = newViewFeed(cfg.Source, cfg.Only, b.planner)
	b.kernel = kernel{shadow: NewTable(), pollRules: cfg.PollRules, count: &b.count}
	b.drains = newDrains(cfg.DrainPoll, b.planner.node.Drain, cfg.Log)
	b.failures = failures{min: cfg.RetryMin, max: cfg.RetryMax, log: cfg.Log}
	b.choice = driverChoice{candidates: cfg.Drivers, again: cfg.RetryMax, log: cfg.Log}
	b.retirement = newRetirement(&cfg, b.planner.node.Drain)
	b.reconciler = reconciler{
		kernel: &b.kernel, planner: b.planner, feed: &b.feed, drains: &b.drains, failures: &b.failures,
		dirty: map[Key]struct{}{}, failed: map[Key]error{},
	}
	b.auditor = auditor{
		pace: readbackPace{every: cfg.Audit}, reports: reportLog{onDrift: cfg.OnDrift, log: cfg.Log},
		kernel: &b.kernel, reconciler: &b.reconciler, failures: &b.failures,
		clock: &b.clock, count: &b.count, reconcile: b.reconcile,
	}
	b.readers = newReaderCopies(cfg.OnRefused, cfg.Log)
	return b, nil
}

// Run balances until ctx ends. The kernel goes on balancing after that; Teardown
// of a driver removes what is ours. Run may be called once. It returns nil: errors
// show in Status and in the log, and are retried.
func (b *Balancer) Run(ctx context.Context) error {
	defer b.close()
	now := time.Now()
	b.started = now
	b.reconciler.graceEnd = now.Add(b.cfg.Grace)
	b.clock.setNoLater(alarmProbe, now)
	b.clock.setNoLater(alarmGrace, b.reconciler.graceEnd)
	timer := time.NewTimer(0)
	defer timer.Stop()
	facts := b.readFacts()
	names, stale := b.cfg.Source.Networks()
	b.follow(names)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-stale:
			names, stale = b.cfg.Source.Networks()
			b.follow(names)
		case <-facts:
			facts = b.readFacts()
			b.clock.setNoLater(alarmApply, time.Now())
		case <-b.cfg.RoutesChanged:
			b.clock.setNoLater(alarmPollRules, b.triggers.raise(time.Now()))
		case <-b.cfg.RulesChanged:
			b.clock.setNoLater(alarmPollRules, b.triggers.raise(time.Now()))
		case <-b.feed.ready:
			b.clock.setNoLater(alarmApply, b.nextApply())
		case request := <-b.requests:
			request(ctx)
		case <-timer.C:
			b.step(ctx, time.Now())
		}
		b.clock.arm(timer)
	}
}

// close ends the subscriptions and closes the drivers.
func (b *Balancer) close() {
	b.feed.close()
	for _, d := range slices.Concat(b.cfg.Drivers, b.cfg.Former) {
		if err := d.Close(); err != nil {
			b.cfg.Log.Warn("cannot close a load balancing driver",
				slog.String("driver", d.Name()), slog.Any("error", err))
		}
	}
	close(b.done)
}

// follow subscribes to the views of these networks, and to no others.
func (b *Balancer) follow(names []string) {
	if b.feed.follow(names) {
		b.reconciler.everything = true
	}
	b.clock.setNoLater(alarmApply, time.Now())
}

// readFacts plans for what the host is now, and returns a channel that is closed
// when that changes. Without a source of facts no pool is ever refused.
func (b *Balancer) readFacts() (changed <-chan struct{}) {
	if b.cfg.Facts == nil {
		return nil
	}
	var facts *hostfacts.Facts
	facts, changed = b.cfg.Facts.Facts()
	b.planner.SetFacts(facts)
	b.reconciler.everything = true
	return changed
}

// nextApply returns when a change that a view announces now is to be applied.
func (b *Balancer) nextApply() time.Time { return later(time.Now().Add(b.cfg.Coalesce), b.restUntil) }

// Hold makes the balancer leave the kernel as it is, from its return until the
// end of Run. A daemon that says goodbye calls it, since its views lose what the
// kernel is to go on with until the next start. The error is ErrStopped or that
// of ctx.
func (b *Balancer) Hold(ctx context.Context) error {
	_, err := runInLoop(ctx, b, func(context.Context) struct{} {
		b.held = true
		return struct{}{}
	})
	return err
}

// step does what is due.
func (b *Balancer) step(ctx context.Context, now time.Time) {
	if b.held {
		b.clock = alarmClock{}
		return
	}
	if b.clock.take(alarmGrace, now) {
		b.reconciler.everything = true
		b.clock.setNoLater(alarmApply, now)
	}
	if b.clock.take(alarmProbe, now) {
		b.start(ctx, now)
	}
	if b.clock.take(alarmVerify, now) {
		b.verify(ctx, now)
	}
	if b.clock.take(alarmPollRules, now) {
		b.compareIfTriggered(ctx, now)
	}
	if b.clock.take(alarmDrain, now) {
		b.pollDrains(ctx, now)
	}
	if b.clock.take(alarmRetire, now) {
		b.retireOthers(ctx, now)
	}
	if b.clock.take(alarmRetry, now) {
		b.reconciler.retryFailed()
		b.count.Retries++
		b.clock.setNoLater(alarmApply, now)
	}
	if b.clock.take(alarmApply, now) {
		b.reconciler.collect()
		b.reconcile(ctx, now)
		took := min(time.Since(now), longestRest)
		b.restUntil = time.Now().Add(took)
	}
	b.publish()
}

// reconcile writes to the kernel what is to be compared, and sets the alarms for
// what comes of it.
func (b *Balancer) reconcile(ctx context.Context, now time.Time) {
	outcome := b.reconciler.step(ctx, now)
	b.clock.setNoLater(alarmApply, outcome.applyAt)
	b.clock.setNoLater(alarmDrain, outcome.drainAt)
	b.clock.setNoLater(alarmRetry, outcome.retryAt)
	if outcome.drift {
		b.auditor.pace.suspect(now)
		b.clock.setNoLater(alarmVerify, outcome.retryAt)
	}
}

// pollDrains looks for draining backends that are idle or out of time, and has
// them compared again.
func (b *Balancer) pollDrains(ctx context.Context, now time.Time) {
	var usage usageFunc
	if b.kernel.ready {
		usage = func(keys []Key) (map[Key]Usage, error) { return b.kernel.driver.Usage(ctx, keys) }
	}
	over, next := b.drains.step(now, usage)
	b.clock.setNoLater(alarmDrain, next)
	if len(over) > 0 {
		b.reconciler.add(over)
		b.clock.setNoLater(alarmApply, now)
	}
}

// compareIfTriggered compares with the kernel at once if somebody else wrote to it, and not
// again before the budget allows, so that a program that changes the kernel's rules
// all the time does not cost a comparison each time (L15).
func (b *Balancer) compareIfTriggered(ctx context.Context, now time.Time) {
	if b.kernel.numberPolled() {
		b.clock.setNoLater(alarmPollRules, now.Add(b.cfg.PollInterval))
	}
	if !b.kernel.ready {
		return // alarmProbe is set, and sets this one
	}
	compare, again := b.triggers.take(now, func() bool { return b.kernel.othersWrote(ctx) })
	b.clock.setNoLater(alarmPollRules, again)
	if !compare {
		return
	}
	b.count.Triggered++
	rest := b.cfg.TriggerBudget.Spend(func() { b.verify(ctx, now) })
	b.triggers.restUntil(time.Now().Add(min(rest, b.cfg.Verify)))
}

// retireOthers ends what drivers that are not used left in the kernel (L14).
func (b *Balancer) retireOthers(ctx context.Context, now time.Time) {
	if !b.retirement.alone && (!b.kernel.ready || !b.reconciler.caughtUp(now)) {
		b.clock.setNoLater(alarmRetire, now.Add(b.cfg.DrainPoll))
		return
	}
	b.clock.setNoLater(alarmRetire, b.retirement.step(ctx, now, &b.kernel))
}
