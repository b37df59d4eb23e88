//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/test/fleet"
)

// Result of a run.
type Result struct {
	Seed      uint64
	Rounds    int
	Faults    map[string]int // by kind
	Tasks     int            // ever registered
	WorstHeal time.Duration  // until all was right again

	clients tally

	mu         sync.Mutex // guards violations
	violations []string
}

// Run plays chaos on a fleet without hosts. The error says what did not hold;
// the result is whole in any case.
func Run(ctx context.Context, f *fleet.Fleet, o Options) (*Result, error) {
	c := &cluster{Options: o, fleet: f, rng: rand.New(rand.NewPCG(o.Seed, 1))}
	c.result.Seed = o.Seed
	c.result.Faults, c.result.clients.explained = map[string]int{}, map[string]int{}
	o.Log("chaos seed=%d hosts=%d for=%v bound=%v", o.Seed, o.Hosts, o.For, o.Bound)
	if err := c.start(ctx); err != nil {
		return &c.result, fmt.Errorf("start: %w", err)
	}
	if err := poll(ctx, o.Bound, func() error { return c.check(ctx) }); err != nil {
		return &c.result, fmt.Errorf("before any fault: %w", err)
	}
	err := c.play(ctx)
	c.result.Tasks = len(c.book.all(func(*entry) bool { return true }))
	return &c.result, errors.Join(err, c.result.err())
}

// play runs rounds, with clients on every host throughout.
func (c *cluster) play(ctx context.Context) error {
	probing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i, m := range c.members {
		p := &prober{c, m, rand.New(rand.NewPCG(c.Seed, uint64(100+i)))}
		wg.Go(func() { p.run(probing) })
	}
	defer wg.Wait()
	defer stop()
	w := &worker{cluster: c, rng: rand.New(rand.NewPCG(c.Seed, 2))}
	for end := time.Now().Add(c.For); time.Now().Before(end) && ctx.Err() == nil; {
		if err := c.round(ctx, w, time.Until(end)); err != nil {
			return fmt.Errorf("round %d: %w", c.result.Rounds, err)
		}
		if c.result.err() != nil {
			return nil // Run tells
		}
	}
	return ctx.Err()
}

// round plays faults, heals them, and waits until all is right. Only the end
// of the run shortens what the seed drew.
func (c *cluster) round(ctx context.Context, w *worker, left time.Duration) error {
	c.result.Rounds++
	faults, lasts := round(c.rng, len(c.members), c.Only)
	lasts = min(lasts, max(left, 2*time.Second))
	working, stop := context.WithCancel(ctx)
	defer stop()
	worked := make(chan error, 1)
	go func() { worked <- w.run(working) }()
	for _, f := range faults {
		wait(ctx, f.after)
		c.result.Faults[f.kind]++
		c.Log("round %d: %s", c.result.Rounds, f)
		if err := c.inject(f); err != nil {
			return err
		}
	}
	wait(ctx, lasts)
	if err := c.heal(ctx); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	wait(ctx, 500*time.Millisecond) // changes while the fleet recovers
	healed := time.Now()
	stop()
	if err := <-worked; err != nil {
		return fmt.Errorf("tasks: %w", err)
	}
	return c.untilRight(ctx, lasts, healed)
}

// slow is how long after a heal it is worth telling what is still wrong.
const slow = 3 * time.Second

// untilRight waits until all that is checked holds.
func (c *cluster) untilRight(ctx context.Context, lasted time.Duration, healed time.Time) error {
	var wrong error // until just before the end
	err := poll(ctx, c.Bound, func() error {
		err := c.book.resolveUnsure(ctx, c.members)
		if err == nil {
			err = c.check(ctx)
		}
		if err != nil && time.Since(healed) > slow {
			wrong = err
		}
		return err
	})
	if err := errors.Join(c.alive(), err); err != nil {
		c.dump(ctx)
		return err
	}
	took := time.Since(healed)
	c.result.WorstHeal = max(c.result.WorstHeal, took)
	c.Log("round %d: healed after %v, all right %v later, %d tasks; clients: %s",
		c.result.Rounds, lasted, took.Round(time.Millisecond), len(c.registered()), c.result.clients.line())
	if wrong != nil {
		c.Log("round %d: until then %v", c.result.Rounds, wrong)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (c *cluster) violation(format string, args ...any) {
	r := &c.result
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.violations) < 20 {
		r.violations = append(r.violations, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// err tells of violations and unexplained failures.
func (r *Result) err() error {
	r.mu.Lock()
	vs := slices.Clone(r.violations)
	r.mu.Unlock()
	r.clients.mu.Lock()
	us := slices.Clone(r.clients.unexplained)
	r.clients.mu.Unlock()
	var errs []error
	for _, v := range vs {
		errs = append(errs, errors.New(v))
	}
	for _, u := range us[:min(20, len(us))] {
		errs = append(errs, errors.New("unexplained: "+u))
	}
	return errors.Join(errs...)
}

// String is the summary line.
func (r *Result) String() string {
	total := 0
	for _, n := range r.Faults {
		total += n
	}
	return fmt.Sprintf("chaos-real seed=%d rounds=%d faults=%d tasks=%d worst_heal_ms=%d %s violations=%d",
		r.Seed, r.Rounds, total, r.Tasks, r.WorstHeal.Milliseconds(), r.clients.line(), len(r.violations))
}

// Explained lists the explanations of failed attempts, each with its number.
func (r *Result) Explained() string {
	t := &r.clients
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for _, why := range slices.Sorted(maps.Keys(t.explained)) {
		lines = append(lines, fmt.Sprintf("%6d  %s", t.explained[why], why))
	}
	return strings.Join(lines, "\n")
}

func (t *tally) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("requests=%d failed=%d unexplained=%d", t.attempts, t.failures(), len(t.unexplained))
}
