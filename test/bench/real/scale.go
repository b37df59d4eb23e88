//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// everything does to a whole mesh what befalls one: churn, the end of a tenth of its
// daemons and their return, a partition and its end. startAll came before.
func (b *bench) everything(r *rig.Rig) error {
	for _, op := range []struct {
		name string
		run  func() (string, error)
	}{
		{"churn", b.churn},
		{"tenth_killed", b.killTenth},
		{"back", b.startKilled},
		{"partition", func() (string, error) { return b.partition(r) }},
		{"heal", func() (string, error) { return b.heal(r) }},
	} {
		before, err := b.usage()
		if err != nil {
			return err
		}
		text, err := op.run()
		if err != nil {
			return fmt.Errorf("%s: %w", op.name, err)
		}
		if err := b.tell(op.name, text, before); err != nil {
			return err
		}
	}
	return b.ctx.Err()
}

// tell prints the line of one operation.
func (b *bench) tell(op, text string, before usage) error {
	after, err := b.usage()
	if err != nil {
		return err
	}
	fmt.Printf("scale impl=meshd real=1 op=%s nodes=%d %s %s\n", op, len(b.nodes), text, after.since(before))
	return nil
}

// each runs f for every node whose daemon runs, at once, and returns how long each took,
// sorted.
func (b *bench) each(f func(n *fleet.Node) error) ([]time.Duration, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var took []time.Duration
	var errs []error
	begin := time.Now()
	for _, n := range b.nodes {
		if b.down[n] {
			continue
		}
		wg.Go(func() {
			err := f(n)
			mu.Lock()
			defer mu.Unlock()
			if took = append(took, time.Since(begin)); err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took, errors.Join(errs...)
}

// see waits until every node that runs sees so many members alive, looked at by each
// every quarter of a second, so that looking costs little.
func (b *bench) see(ctx context.Context, alive int) (string, error) {
	took, err := b.each(func(n *fleet.Node) error {
		for {
			s, err := n.API.Status(ctx)
			switch {
			case err == nil && s.Members.Alive == alive:
				return nil
			case ctx.Err() != nil:
				return fmt.Errorf("%s sees %d members alive, not %d: %w", n.Host.Name, s.Members.Alive, alive, errors.Join(err,
					ctx.Err()))
			}
			select {
			case <-time.After(250 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	return fmt.Sprintf("p50_ms=%s p99_ms=%s max_ms=%s", ms(took, 0.5), ms(took, 0.99), ms(took, 1)), err
}

// startAll starts all daemons at once, and waits until each sees all.
func (b *bench) startAll(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make(chan error, len(b.nodes))
	for _, n := range b.nodes {
		wg.Go(func() { errs <- n.Start(ctx) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	text, err := b.see(ctx, len(b.nodes))
	if err != nil {
		return err
	}
	return b.tell("start", text, usage{})
}

// churn prints the line of converge; what it returns is for the line of its cost.
func (b *bench) churn() (string, error) {
	begin := time.Now()
	if err := b.converge(); err != nil {
		return "", err
	}
	return fmt.Sprintf("changes=%d lasted_s=%.0f", b.changes, time.Since(begin).Seconds()), nil
}

// killTenth kills every tenth daemon at once; the times are until each other has noticed
// all of it.
func (b *bench) killTenth() (string, error) {
	for i, n := range b.nodes {
		if i%10 == 7 {
			b.down[n] = true
			n.Proc.Kill()
		}
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return b.see(ctx, len(b.nodes)-len(b.down))
}

// startKilled starts those again; the times are until each sees all.
func (b *bench) startKilled() (string, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for n := range b.down {
		delete(b.down, n)
		if err := n.Start(ctx); err != nil {
			return "", err
		}
	}
	return b.see(ctx, len(b.nodes))
}

// partition cuts the mesh in two halves; the times are until each node sees its half.
func (b *bench) partition(r *rig.Rig) (string, error) {
	half := len(b.nodes) / 2
	if err := r.Partition(r.Hosts()[:half]...); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	var text string
	var err error
	if len(b.nodes)%2 == 0 {
		text, err = b.see(ctx, half)
	} else {
		b.pause(30 * time.Second)
	}
	return text, err
}

// heal ends that; the times are until each node sees all, equal_s until tables are equal.
func (b *bench) heal(r *rig.Rig) (string, error) {
	begin := time.Now()
	if err := r.HealAll(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, err := b.see(ctx, len(b.nodes))
	if err != nil {
		return "", err
	}
	if err := b.nodes[0].Equal(ctx, len(b.nodes)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s equal_s=%.1f", text, time.Since(begin).Seconds()), nil
}
