package checker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"meshd/mesh/health"
	"meshd/mesh/internal/probe"
	"meshd/mesh/source"
	"meshd/state"
)

// Config configures a Checker.
type Config struct {
	// Sink takes the verdicts.
	Sink source.Sink
	// Probe makes one run; probe.Run, or a test's. It is called by many goroutines and
	// ends soon after its context.
	Probe func(ctx context.Context, c *health.Check, t probe.Target) health.Result
	// Sandbox returns what calls a function inside the network namespace of a task's
	// sandbox, or nil if the task has none here. It must not wait.
	Sandbox func(network, id string) func(f func() error) error
	// Now is the monotonic time since any moment.
	Now func() time.Duration
	// Rand is the source of jitter. The Checker owns it.
	Rand *rand.Rand
	// Log gets what no caller is there to hear.
	Log *slog.Logger
}

// ErrStopped is returned after Run has.
var ErrStopped = errors.New("the health checks of this node have stopped")

// Checker runs checks. Make it with New and call Run once. Its other methods are safe
// for concurrent use.
type Checker struct {
	cfg Config // fixed

	// Of the goroutine of Run.

	scheduler *scheduler           // says what is to be run
	tasks     map[source.Ref]*task // that have checks
	runs      sync.WaitGroup       // goroutines of runs

	// Messages to it.

	results chan result   // of runs; it has room for all that go on
	asks    chan func()   // called by the goroutine of Run
	news    chan struct{} // says that changes has something; its capacity is 1
	ended   chan struct{} // closed when Run has returned

	mu      sync.Mutex          // guards what follows; held for moments
	changes []source.Registered // what apply has not seen yet

	out *stater // states verdicts
}

// result is what a run found.
type result struct {
	entry *entry
	found health.Result
}

var _ source.Watcher = (*Checker)(nil)

// New returns a Checker that knows no tasks.
func New(cfg Config) *Checker {
	return &Checker{
		cfg: cfg, scheduler: newScheduler(cfg.Rand), tasks: map[source.Ref]*task{},
		results: make(chan result, networkRuns+programRuns), asks: make(chan func()),
		news: make(chan struct{}, 1), ended: make(chan struct{}), out: newStater(cfg.Sink, cfg.Log),
	}
}

// Registered implements source.Watcher.
func (c *Checker) Registered(changes []source.Registered) {
	c.mu.Lock()
	c.changes = append(c.changes, changes...)
	c.mu.Unlock()
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// Run runs checks until ctx ends. Runs that go on are ended, with the programs that
// they have started.
func (c *Checker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer close(c.ended)
	defer c.runs.Wait()
	defer cancel()
	c.runs.Go(func() { c.out.run(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.news:
			c.out.offer(c.apply(c.cfg.Now(), c.takeChanges()))
		case f := <-c.asks:
			f()
		case r := <-c.results:
			c.scheduler.finish(c.cfg.Now(), r.entry, r.found)
		}
		c.advance(ctx, timer)
	}
}

// takeChanges returns what was registered since it was called last.
func (c *Checker) takeChanges() []source.Registered {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.changes
	c.changes = nil
	return all
}

// advance does what the scheduler wants done, and sets the timer for the next time.
func (c *Checker) advance(ctx context.Context, timer *time.Timer) {
	now := c.cfg.Now()
	c.scheduler.tick(now)
	for _, e := range c.scheduler.begin {
		c.start(ctx, e)
	}
	clear(c.scheduler.begin)
	c.scheduler.begin = c.scheduler.begin[:0]
	c.out.offer(c.movedVerdicts())
	if at, ok := c.scheduler.next(); ok {
		timer.Reset(max(0, at-now))
	} else {
		timer.Stop()
	}
}

// movedVerdicts are those of the tasks of which a check has another verdict.
func (c *Checker) movedVerdicts() (verdicts []source.Verdict) {
	for _, e := range c.scheduler.moved {
		if t := e.task; !e.removed && t.verdict() != t.stated {
			t.stated = t.verdict()
			verdicts = append(verdicts, source.Verdict{Ref: t.ref, Health: t.stated})
		}
	}
	clear(c.scheduler.moved)
	c.scheduler.moved = c.scheduler.moved[:0]
	return verdicts
}

// start begins a run in a goroutine of its own.
func (c *Checker) start(ctx context.Context, e *entry) {
	ctx, e.cancel = context.WithCancel(ctx)
	target, why := c.target(e)
	if e.removed {
		e.cancel()
	}
	cancel := e.cancel
	c.runs.Go(func() {
		defer cancel()
		found := health.Result{Outcome: health.Unknown, Output: why}
		if why == "" {
			found = c.cfg.Probe(ctx, e.check, target)
		}
		c.results <- result{e, found}
	})
}

// target is what a check is put to; why says what is missing.
func (c *Checker) target(e *entry) (t probe.Target, why string) {
	ep, d := &e.task.endpoint, &e.check.Definition
	addr := e.check.Addr
	if !addr.IsValid() {
		if addr = ep.IP4; !addr.IsValid() {
			addr = ep.IP6
		}
	}
	port := PortOf(e.check, ep.Ports)
	t = probe.Target{Addr: netip.AddrPortFrom(addr, port), Env: environment(e.task, addr, port)}
	if port == 0 && d.Type != health.Exec {
		return t, "the task declares no TCP port, and the check names none"
	}
	if d.From == health.FromSandbox {
		if t.Inside = c.cfg.Sandbox(e.task.ref.Network, e.task.ref.ID); t.Inside == nil {
			return t, "the task has no sandbox on this node"
		}
	}
	return t, ""
}

// PortOf is the port that a check asks: its own, or the first of TCP that the task
// declares; 0: there is none.
func PortOf(c *health.Check, ports []state.Port) uint16 {
	if p := c.Definition.Port; p > 0 && p <= 65535 {
		return uint16(p)
	}
	for _, p := range ports {
		if p.Proto == state.TCP {
			return p.Number
		}
	}
	return 0
}

// environment is what a program is told of its task.
func environment(t *task, addr netip.Addr, port uint16) []string {
	return []string{
		"MESHD_NETWORK=" + t.ref.Network, "MESHD_SERVICE=" + t.endpoint.Service, "MESHD_TASK=" + t.ref.ID,
		"MESHD_ADDRESS=" + addr.String(), "MESHD_PORT=" + strconv.Itoa(int(port)),
	}
}

// ask calls f in the goroutine of Run and returns when it has.
func (c *Checker) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case c.asks <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-c.ended:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}
