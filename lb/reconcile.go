package lb

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// reconciler makes the kernel equal to the plan. It owns the list of what is to be
// compared and of what failed; the other parts are the balancer's.
type reconciler struct {
	kernel   *kernel   // is made equal to the plan
	planner  *planner  // holds the plan
	feed     *viewFeed // knows which networks have synced
	drains   *drains   // decide when a removed backend may go
	failures *failures // get the errors

	// What to compare at the next step.
	everything bool             // all of both tables, not only dirty
	dirty      map[Key]struct{} // services that may differ
	failed     map[Key]error    // services with operations that failed at the latest step

	graceEnd time.Time // before it, nothing of a previous run is removed from a network that has not synced (L1)
}

// reconcileOutcome is what follows from a step; zero times mean that nothing does.
type reconcileOutcome struct {
	applyAt time.Time // the next step
	drainAt time.Time // the next look at draining backends
	retryAt time.Time // when to try failed operations again
	drift   bool      // an operation failed because the kernel is not as it was left
}

// add has services compared at the next step.
func (r *reconciler) add(keys []Key) {
	for _, k := range keys {
		r.dirty[k] = struct{}{}
	}
}

// collect plans what the views announced, and has it compared at the next step.
func (r *reconciler) collect() {
	if r.feed.collect() {
		r.everything = true
	}
	r.add(r.planner.TakeDirty())
}

// retryFailed has services with failed operations compared at the next step.
func (r *reconciler) retryFailed() {
	for k := range r.failed {
		r.dirty[k] = struct{}{}
	}
}

// pending reports whether something waits to be compared.
func (r *reconciler) pending() bool { return r.everything || len(r.dirty) > 0 }

// step compares what is to be compared, and makes the kernel equal to the plan
// there. Without a driver that is set up it does nothing.
func (r *reconciler) step(ctx context.Context, now time.Time) (next reconcileOutcome) {
	if !r.kernel.ready || ctx.Err() != nil {
		return next
	}
	keys := slices.SortedFunc(maps.Keys(r.dirty), Key.Compare)
	if r.everything {
		keys = r.allKeys()
	}
	r.everything = false
	clear(r.dirty)
	for _, k := range keys {
		delete(r.failed, k)
	}
	ops := diffKeys(r.kernel.shadow, r.planner.Desired(), keys, r.policy(now))
	ops, errs := r.kernel.applyOrdered(ctx, ops)
	for _, k := range keys {
		next.drainAt = earliest(next.drainAt, r.updateEntry(k, now))
	}
	r.followUp(now, ops, errs, &next)
	return next
}

// allKeys returns the keys of both tables, and those of drains, failures and what
// is dirty, sorted.
func (r *reconciler) allKeys() []Key {
	keys := maps.Clone(r.dirty)
	for k := range keysOf(r.kernel.shadow.Services, r.planner.Desired().Services) {
		keys[k] = struct{}{}
	}
	for k := range r.drains.byService {
		keys[k] = struct{}{}
	}
	for k := range r.failed {
		keys[k] = struct{}{}
	}
	return slices.SortedFunc(maps.Keys(keys), Key.Compare)
}

// followUp remembers what failed, and says when to go on.
func (r *reconciler) followUp(now time.Time, ops []Op, errs []error, next *reconcileOutcome) {
	shadow := r.kernel.shadow
	for i, op := range ops {
		err := errorAt(errs, i)
		if err == nil {
			if op.Kind == DelService && len(shadow.Pools) > len(r.planner.Desired().Pools) {
				next.applyAt = now // it may have been the last of a pool that is to go
			}
			continue
		}
		// A backend whose service could not be made is no sign of drift.
		next.drift = next.drift || errors.Is(err, ErrDrift) && (op.Kind != SetBackend || shadow.Services[op.Key] != nil)
		if op.Kind == SetPool || op.Kind == DelPool { // every diff looks at the pools
			continue
		}
		r.failed[op.Key] = err
	}
	err := firstError(ops, errs)
	if err == nil {
		if len(r.failed) == 0 {
			r.failures.clear()
		}
		return
	}
	r.failures.report(now, "apply", err)
	next.retryAt = now.Add(r.failures.nextBackoff())
}

// policy answers Diff's questions.
func (r *reconciler) policy(now time.Time) Policy {
	var forbidden []netip.Prefix
	for prefix := range r.kernel.shadow.Pools {
		if r.planner.forbids(prefix) {
			forbidden = append(forbidden, prefix)
		}
	}
	return Policy{
		Drained:  func(k Key, a netip.AddrPort) bool { return r.drains.over(k, a, now) },
		MustKeep: func(a netip.Addr) bool { return !r.mayRemove(a, now) },
		MustRemove: func(a netip.Addr) bool {
			return slices.ContainsFunc(forbidden, func(p netip.Prefix) bool { return p.Contains(a) })
		},
	}
}

// mayRemove reports whether what is not planned for the address may go: its
// network's view is complete, or the grace period is over.
func (r *reconciler) mayRemove(a netip.Addr, now time.Time) bool {
	if !now.Before(r.graceEnd) {
		return true
	}
	for prefix, pool := range r.planner.Desired().Pools {
		if prefix.Contains(a) {
			return r.feed.synced(pool.Network)
		}
	}
	return false
}

// poolsAsPlanned reports whether no operation on a pool is left to be done.
func (r *reconciler) poolsAsPlanned(now time.Time) bool {
	return len(diffKeys(r.kernel.shadow, r.planner.Desired(), nil, r.policy(now))) == 0
}

// caughtUp reports whether the kernel holds what is to be balanced, of all
// networks that are known.
func (r *reconciler) caughtUp(now time.Time) bool {
	if len(r.failed) > 0 || r.pending() {
		return false
	}
	return !now.Before(r.graceEnd) || r.feed.allSynced()
}

// updateEntry brings the labels of a service in the shadow up to date, and starts
// and ends the drains of its backends. It returns when to look at these, or the
// zero Time.
func (r *reconciler) updateEntry(k Key, now time.Time) (look time.Time) {
	have, want := r.kernel.shadow.Services[k], r.planner.Desired().Services[k]
	if want != nil && have != nil {
		if have.Equal(want) {
			have = want
		} else {
			labelled := *have
			labelled.Network, labelled.Name, labelled.Drain = want.Network, want.Name, want.Drain
			have = &labelled
		}
		r.kernel.shadow.Services[k] = have
	}
	if have == want || have == nil || k.Proto == state.UDP {
		r.drains.end(k, want, now)
		return time.Time{}
	}
	return r.drains.update(k, have, want, now)
}
