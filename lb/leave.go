package lb

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"
)

// Leaver is implemented by drivers that can leave a namespace to another one.
type Leaver interface {
	// Leave ends what a run of this driver left, without Setup: it gives new
	// connections to nobody and keeps those that are open, takes away what none of
	// them uses any more, and returns how much is left. What the driver that has
	// the namespace now made stays. Finding nothing is no error.
	Leave(ctx context.Context, how Leaving) (left int, err error)
}

// Leaving says how a driver leaves.
type Leaving struct {
	Cut   bool // also what is still in use
	Alone bool // no other driver has the namespace: pools and rules go as well
}

// leaving is the end of what other drivers left.
type leaving struct {
	begun    bool
	to       Driver   // that has the namespace now
	drivers  []Driver // that may have left something
	deadline time.Time
	wait     time.Duration
}

// leavers returns the drivers that are not to be used: those of earlier runs,
// and the ones that were not chosen.
func (b *Balancer) leavers() []Driver {
	var all []Driver
	for _, list := range [][]Driver{b.cfg.Former, b.cfg.Drivers} {
		for _, d := range list {
			if _, ok := d.(Leaver); ok && d != b.driver {
				all = append(all, d)
			}
		}
	}
	return all
}

// beginLeaving looks, once for each driver that is chosen, for what others left.
func (b *Balancer) beginLeaving(now time.Time) {
	if b.leaving.begun && b.leaving.to == b.driver {
		return
	}
	b.leaving = leaving{begun: true, to: b.driver, drivers: b.leavers()}
	if len(b.leaving.drivers) > 0 {
		b.clock.by(alarmLeave, now)
	}
}

// leave ends what other drivers left, once the driver of this run knows all that
// is to be balanced: until then the old ones serve what it does not. What is in
// use then has the time that a drain has (L5).
func (b *Balancer) leave(ctx context.Context, now time.Time) {
	alone := len(b.cfg.Drivers) == 0
	if !alone && (!b.ready || !b.caughtUp(now)) {
		b.clock.by(alarmLeave, now.Add(b.cfg.DrainPoll))
		return
	}
	if b.leaving.deadline.IsZero() {
		b.leaving.deadline = now.Add(b.planner.node.Drain)
	}
	how := Leaving{Cut: !now.Before(b.leaving.deadline), Alone: alone}
	var still []Driver
	for _, d := range b.leaving.drivers {
		if b.leaveOne(ctx, d, how) {
			still = append(still, d)
		}
	}
	for _, d := range b.leaving.drivers {
		if !slices.Contains(still, d) {
			_ = d.Close() // it opens again what it needs
		}
	}
	if b.leaving.drivers = still; len(still) == 0 {
		if alone {
			b.cfg.OnDriver("")
		}
		return
	}
	b.leaving.wait = min(max(2*b.leaving.wait, b.cfg.DrainPoll), drainPollGrowth*b.cfg.DrainPoll)
	if how.Cut {
		b.leaving.wait = b.cfg.RetryMax // only what failed is left
	}
	b.clock.by(alarmLeave, now.Add(b.leaving.wait))
	if !how.Cut {
		b.clock.by(alarmLeave, b.leaving.deadline)
	}
}

// leaveOne reports whether there is more to do for a driver.
func (b *Balancer) leaveOne(ctx context.Context, d Driver, how Leaving) (more bool) {
	var left int
	var err error
	b.write(ctx, func() { left, err = d.(Leaver).Leave(ctx, how) })
	log := b.cfg.Log.With(slog.String("driver", d.Name()))
	switch {
	case errors.Is(err, ErrUnsupported):
		return false // it cannot have left anything here
	case err != nil:
		if text := err.Error(); text != b.leaveSaid {
			b.leaveSaid = text
			log.Warn("what another load balancing driver left is still there", slog.Any("err", err))
		}
		return true
	case left > 0 && b.leaving.wait == 0:
		log.Info("services of another load balancing driver take no new connections; they go when the last ends, or in a moment", slog.Int("services", left))
	}
	return left > 0
}

// caughtUp reports whether the kernel holds what is to be balanced, of all
// networks that are known.
func (b *Balancer) caughtUp(now time.Time) bool {
	if len(b.failed) > 0 || b.full || len(b.dirty) > 0 {
		return false
	}
	if !now.Before(b.started.Add(b.cfg.Grace)) {
		return true
	}
	for _, w := range b.watches {
		if !w.view.Synced() {
			return false
		}
	}
	return len(b.watches) > 0
}
