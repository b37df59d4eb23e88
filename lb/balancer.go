package lb

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"meshd/lb/hostfacts"
	"meshd/state"
)

// Balancer keeps one kernel's load balancing equal to what the views say. Run
// is its one goroutine; the other methods are safe for concurrent use.
type Balancer struct {
	cfg      Config
	wake     chan struct{}                                   // capacity 1: a subscription has something
	asks     chan func(context.Context)                      // run by the loop, between two steps
	done     chan struct{}                                   // closed when Run has returned
	counters atomic.Pointer[Counters]                        // a copy after every step
	working  atomic.Pointer[map[string]bool]                 // networks whose helper state is programmed
	pools    atomic.Pointer[map[netip.Prefix]Pool]           // that are planned
	refusals atomic.Pointer[map[string][]hostfacts.Conflict] // of the planner, for readers
	last     atomic.Pointer[Report]                          // the latest comparison with the kernel; nil before the first
	drifted  atomic.Pointer[Report]                          // the latest that found something; nil if none did

	// What follows belongs to Run.
	clock     alarmClock
	started   time.Time
	watches   map[string]*watch
	planner   *Planner
	shadow    *Table // what the kernel holds, as far as we know
	driver    Driver
	ready     bool // the driver is set up and shadow is true
	adopted   bool // shadow has been true: what the kernel holds instead is somebody else's doing
	tried     int  // of cfg.Drivers, in this round
	refused   []Refusal
	noneSaid  string           // why no driver works, as last logged
	full      bool             // compare everything, not only dirty
	dirty     map[Key]struct{} // to compare
	failed    map[Key]error    // to compare at alarmRetry
	backoff   time.Duration
	drains    map[Key]map[netip.AddrPort]*drain
	draining  int // backends in drains
	drainPoll drainPoll
	trouble   trouble
	leaving   leaving
	leaveSaid string // why what other drivers left is still there, as last logged
	count     Counters

	held      bool // by Hold
	glances   glances
	tellings  tellings
	rest      time.Time // until then what the views say gathers
	suspect   bool      // services are not as we left them: read them back at the next verify
	fullAt    time.Time // when services were last read back
	fullAfter time.Time // they are not read back before, because it takes long
}

// watch is one network's subscription with the goroutine that forwards it.
type watch struct {
	view state.View
	sub  *state.Subscription
	stop chan struct{}
}

// New returns a balancer that does nothing before Run. The error names the
// setting that is missing.
func New(cfg Config) (*Balancer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b := &Balancer{
		cfg: cfg, wake: make(chan struct{}, 1), asks: make(chan func(context.Context)), done: make(chan struct{}),
		watches: map[string]*watch{}, planner: NewPlanner(cfg.Node), shadow: NewTable(),
		dirty: map[Key]struct{}{}, failed: map[Key]error{}, drains: map[Key]map[netip.AddrPort]*drain{},
	}
	b.counters.Store(&Counters{})
	b.working.Store(&map[string]bool{})
	b.pools.Store(&map[netip.Prefix]Pool{})
	b.refusals.Store(&map[string][]hostfacts.Conflict{})
	return b, nil
}

// Run balances until ctx ends. The kernel goes on balancing after that: use
// Teardown of a driver to remove what is ours. Run may be called once. It
// returns nil; trouble shows in Status and in the log.
func (b *Balancer) Run(ctx context.Context) error {
	defer b.close()
	now := time.Now()
	b.started = now
	b.clock.by(alarmProbe, now)
	b.clock.by(alarmGrace, now.Add(b.cfg.Grace))
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
			b.clock.by(alarmApply, time.Now())
		case <-b.cfg.Touched:
			b.touched(time.Now())
		case <-b.cfg.Heard:
			b.touched(time.Now())
		case <-b.wake:
			b.clock.by(alarmApply, later(time.Now().Add(b.cfg.Coalesce), b.rest))
		case ask := <-b.asks:
			ask(ctx)
		case <-timer.C:
			b.step(ctx, time.Now())
		}
		b.arm(timer)
	}
}

func (b *Balancer) arm(timer *time.Timer) {
	if next := b.clock.next(); next.IsZero() {
		timer.Stop()
	} else {
		timer.Reset(time.Until(next))
	}
}

func (b *Balancer) close() {
	for _, w := range b.watches {
		w.end()
	}
	for _, d := range slices.Concat(b.cfg.Drivers, b.cfg.Former) {
		if err := d.Close(); err != nil {
			b.cfg.Log.Warn("closing driver", slog.String("driver", d.Name()), slog.Any("err", err))
		}
	}
	close(b.done)
}

// follow makes the watches equal to the networks.
func (b *Balancer) follow(names []string) {
	for name, w := range b.watches {
		if !slices.Contains(names, name) || b.cfg.Source.View(name) != w.view {
			w.end()
			delete(b.watches, name)
			b.planner.DropNetwork(name)
			b.full = true
		}
	}
	for _, name := range names {
		if b.watches[name] != nil || !b.cfg.Only(name) {
			continue
		}
		if view := b.cfg.Source.View(name); view != nil {
			b.watches[name] = b.startWatch(view)
			b.readNetwork(name, view)
		}
	}
	b.clock.by(alarmApply, time.Now())
}

func (b *Balancer) startWatch(view state.View) *watch {
	w := &watch{view: view, sub: view.Subscribe(), stop: make(chan struct{})}
	go func() {
		for {
			select {
			case <-w.stop:
				return
			case <-w.sub.Ready():
			}
			select {
			case b.wake <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

func (w *watch) end() {
	close(w.stop)
	w.sub.Close()
}

// readNetwork plans all of a network.
func (b *Balancer) readNetwork(name string, view state.View) {
	b.readDef(name, view)
	gone := map[string]bool{}
	for _, s := range b.planner.Services(name) {
		gone[s] = true
	}
	for _, s := range view.Services() {
		delete(gone, s.Name)
		b.planner.Set(name, s.Name, s)
	}
	for s := range gone {
		b.planner.Set(name, s, nil)
	}
	b.full = true
}

func (b *Balancer) readDef(name string, view state.View) {
	def := view.Def()
	def.Name = name
	b.planner.SetNetwork(def)
}

// collect plans what the subscriptions say has changed.
func (b *Balancer) collect() {
	for network, w := range b.watches {
		for _, name := range w.sub.Drain() {
			if name == "" { // definition or first sync: pools and removals depend on it
				b.readDef(network, w.view)
				b.full = true
				continue
			}
			b.planner.Set(network, name, w.view.Service(name))
		}
	}
	for _, k := range b.planner.TakeDirty() {
		b.dirty[k] = struct{}{}
	}
}

// Hold makes the balancer leave the kernel as it is, from its return until the
// end of Run: for a daemon that says goodbye, whose views lose what the kernel
// is to go on with until the next start. The error is ErrStopped or that of ctx.
func (b *Balancer) Hold(ctx context.Context) error {
	_, err := ask(ctx, b, func(context.Context) struct{} {
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
		b.full = true
		b.clock.by(alarmApply, now)
	}
	if b.clock.take(alarmProbe, now) {
		b.start(ctx, now)
	}
	if b.clock.take(alarmVerify, now) {
		b.verify(ctx, now)
	}
	if b.clock.take(alarmGlance, now) {
		b.glance(ctx, now)
	}
	if b.clock.take(alarmDrain, now) {
		b.pollDrains(ctx, now)
	}
	if b.clock.take(alarmLeave, now) {
		b.leave(ctx, now)
	}
	if b.clock.take(alarmRetry, now) {
		for k := range b.failed {
			b.dirty[k] = struct{}{}
		}
		b.count.Retries++
		b.clock.by(alarmApply, now)
	}
	if b.clock.take(alarmApply, now) {
		b.collect()
		b.reconcile(ctx, now)
		took := min(time.Since(now), longestRest)
		b.rest = time.Now().Add(took)
	}
	b.publish()
}

// start chooses a driver if there is none, sets it up and adopts what the
// kernel holds.
func (b *Balancer) start(ctx context.Context, now time.Time) {
	b.ready = false
	if !b.mayProgram(now) {
		return
	}
	if !b.choose(ctx) {
		b.count.Unsupported = true
		b.retryProbe(now, b.cfg.RetryMax)
		if len(b.cfg.Drivers) == 0 {
			b.beginLeaving(now)
		}
		return
	}
	b.count.Unsupported = false
	r := Report{At: now, Driver: b.driver.Name(), Full: true}
	if err := b.setUp(ctx, now, &r); err != nil {
		after := b.nextBackoff()
		if errors.Is(err, ErrUnsupported) { // Probe was too hopeful: try the next one
			b.refused = append(b.refused, Refusal{Driver: b.driver.Name(), Reason: err.Error()})
			b.driver, after = nil, 0
		}
		b.retryProbe(now, after)
		return
	}
	b.backoff = 0
	b.ready, b.adopted = true, true
	b.cfg.OnDriver(b.driver.Name())
	b.beginLeaving(now)
	b.clock.by(alarmVerify, now.Add(b.cfg.Verify))
	b.clock.by(alarmGlance, now.Add(b.cfg.Glance))
	b.clock.by(alarmApply, now)
	if len(r.Findings) > 0 { // changed while the driver did not work
		b.collect()
		b.reconcile(ctx, now)
		b.judge(ctx, &r)
	}
	b.file(&r)
}

// setUp makes what is beside the services, and adopts the services.
func (b *Balancer) setUp(ctx context.Context, now time.Time, r *Report) error {
	var err error
	b.write(ctx, func() { err = b.driver.Setup(ctx) })
	if err != nil {
		b.fail(now, "set up driver "+b.driver.Name(), err)
		return err
	}
	if err := b.readBack(ctx, r, true); err != nil {
		b.fail(now, "read the kernel's table", err)
		return err
	}
	return nil
}

// choose makes sure that there is a driver. After the last one was refused,
// the next call starts again with the first.
func (b *Balancer) choose(ctx context.Context) bool {
	if b.driver != nil {
		return true
	}
	var refused []Refusal
	if b.tried >= len(b.cfg.Drivers) {
		b.tried, b.refused = 0, nil
	}
	b.driver, refused = Choose(ctx, b.cfg.Drivers[b.tried:])
	b.tried += len(refused) + 1
	b.refused = append(b.refused, refused...)
	if b.driver != nil {
		b.cfg.Log.Info("load balancing driver chosen", slog.String("driver", b.driver.Name()), slog.Any("refused", b.refused))
		b.noneSaid = ""
		return true
	}
	b.sayNone()
	return false
}

// sayNone tells operators, once per reason, that nothing is balanced here.
func (b *Balancer) sayNone() {
	why := b.notReady()
	if why == b.noneSaid {
		return
	}
	b.noneSaid = why
	if len(b.cfg.Drivers) == 0 {
		b.cfg.Log.Info("load balancing is off; vip services are answered with their tasks")
		return
	}
	b.cfg.Log.Warn("nothing is balanced on this host; vip services are answered with their tasks",
		slog.String("why", why), slog.Duration("again_in", b.cfg.RetryMax))
}

func (b *Balancer) retryProbe(now time.Time, after time.Duration) {
	b.clock.by(alarmProbe, now.Add(after))
}

// nextBackoff returns how long to wait after the next failure in a row.
func (b *Balancer) nextBackoff() time.Duration {
	b.backoff = min(max(2*b.backoff, b.cfg.RetryMin), b.cfg.RetryMax)
	return b.backoff
}

// allKeys returns the keys of both tables, and those that something is still
// noted about, sorted.
func (b *Balancer) allKeys() []Key {
	keys := maps.Clone(b.dirty)
	for k := range keysOf(b.shadow.Services, b.planner.Desired().Services) {
		keys[k] = struct{}{}
	}
	for k := range b.drains {
		keys[k] = struct{}{}
	}
	for k := range b.failed {
		keys[k] = struct{}{}
	}
	return slices.SortedFunc(maps.Keys(keys), Key.Compare)
}
