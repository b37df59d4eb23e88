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
	// Leave ends what an earlier run of this driver left, without Setup: it gives
	// new connections no backend, keeps those that are open, and removes what none
	// of them uses any more. It returns how many services are left. What the
	// driver that has the namespace now made stays. Finding nothing is no error.
	Leave(ctx context.Context, how Leaving) (left int, err error)
}

// Leaving says how a driver leaves.
type Leaving struct {
	Cut   bool // also what is still in use
	Alone bool // no other driver has the namespace: pools and rules go as well
}

// retirement ends what drivers that are not used left in the kernel (L14). Services
// that are in use have the time that a drain has (L5). It belongs to the balancer's
// goroutine.
type retirement struct {
	// Settings, which do not change.
	former     []Driver          // Config.Former
	candidates []Driver          // Config.Drivers; all but the one that is chosen leave
	alone      bool              // there are no candidates: nothing is balanced here
	drain      time.Duration     // between the first Leave and the one that cuts
	firstWait  time.Duration     // between two Leaves; grows up to drainPollGrowth times
	retry      time.Duration     // between two Leaves after the cut: only what failed is left
	onDriver   func(name string) // Config.OnDriver
	log        *slog.Logger      // for operators

	// One retirement, for each driver that is chosen.
	begun    bool
	chosen   Driver        // has the namespace now; nil: none does
	leaving  []Driver      // may have left something
	deadline time.Time     // of connections; zero before the first Leave
	wait     time.Duration // before the next Leave; 0 before the first

	loggedError string // as last logged
}

func newRetirement(cfg *Config, drain time.Duration) retirement {
	return retirement{
		former: cfg.Former, candidates: cfg.Drivers, alone: len(cfg.Drivers) == 0, drain: drain,
		firstWait: cfg.DrainPoll, retry: cfg.RetryMax, onDriver: cfg.OnDriver, log: cfg.Log,
	}
}

// begin starts a retirement of all drivers but the chosen one, once for each that
// is chosen, and returns when to call step; the zero Time: nothing is to be done.
func (r *retirement) begin(chosen Driver, now time.Time) (at time.Time) {
	if r.begun && r.chosen == chosen {
		return time.Time{}
	}
	r.begun, r.chosen, r.deadline, r.wait = true, chosen, time.Time{}, 0
	r.leaving = nil
	for _, d := range slices.Concat(r.former, r.candidates) {
		if _, ok := d.(Leaver); ok && d != chosen {
			r.leaving = append(r.leaving, d)
		}
	}
	if len(r.leaving) > 0 {
		at = now
	}
	return at
}

// step has each driver leave, and returns when to go on; the zero Time: nothing
// is left. It is to be called only when the chosen driver holds all that is to be
// balanced, since until then the others serve what it does not.
func (r *retirement) step(ctx context.Context, now time.Time, k *kernel) (next time.Time) {
	if r.deadline.IsZero() {
		r.deadline = now.Add(r.drain)
	}
	how := Leaving{Cut: !now.Before(r.deadline), Alone: r.alone}
	var remaining, finished []Driver
	for _, d := range r.leaving {
		if r.leave(ctx, d, how, k) {
			remaining = append(remaining, d)
		} else {
			finished = append(finished, d)
		}
	}
	for _, d := range finished {
		_ = d.Close() // it opens again what it needs
	}
	if r.leaving = remaining; len(remaining) == 0 {
		if r.alone {
			r.onDriver("")
		}
		return time.Time{}
	}
	if how.Cut {
		r.wait = r.retry
		return now.Add(r.wait)
	}
	r.wait = min(max(2*r.wait, r.firstWait), drainPollGrowth*r.firstWait)
	return earliest(now.Add(r.wait), r.deadline)
}

// leave has one driver leave, and reports whether it has more to do.
func (r *retirement) leave(ctx context.Context, d Driver, how Leaving, k *kernel) (more bool) {
	var left int
	var err error
	k.write(ctx, func() { left, err = d.(Leaver).Leave(ctx, how) })
	log := r.log.With(slog.String("driver", d.Name()))
	switch {
	case errors.Is(err, ErrUnsupported):
		return false // it cannot have left anything here
	case err != nil:
		if text := err.Error(); text != r.loggedError {
			r.loggedError = text
			log.Warn("what another load balancing driver left cannot be removed", slog.Any("error", err))
		}
		return true
	case left > 0 && r.wait == 0:
		log.Info("services of another load balancing driver take no new connections; "+
			"each goes when its last connection ends, or at the end of the drain time", slog.Int("services", left))
	}
	return left > 0
}
