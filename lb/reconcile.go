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

// reconcile makes the kernel equal to the plan for what is dirty.
func (b *Balancer) reconcile(ctx context.Context, now time.Time) {
	if !b.ready || ctx.Err() != nil {
		return
	}
	keys := slices.SortedFunc(maps.Keys(b.dirty), Key.Compare)
	if b.full {
		keys = b.allKeys()
	}
	b.full = false
	clear(b.dirty)
	for _, k := range keys {
		delete(b.failed, k)
	}
	ops := diffKeys(b.shadow, b.planner.Desired(), keys, b.policy(now))
	ops, errs := b.applyOrdered(ctx, ops)
	for _, k := range keys {
		b.settle(k, now)
	}
	b.followUp(now, ops, errs)
}

// applyOrdered applies pools before services, and leaves out services whose
// pool could not be made: without the guard they must not be there (L2). It
// returns the operations with their errors.
func (b *Balancer) applyOrdered(ctx context.Context, ops []Op) ([]Op, []error) {
	n := 0
	for n < len(ops) && ops[n].Kind == SetPool {
		n++
	}
	if n == 0 {
		return ops, b.apply(ctx, ops)
	}
	errs := make([]error, n, len(ops))
	copy(errs, b.apply(ctx, ops[:n]))
	var held, rest []Op
	for _, op := range ops[n:] {
		if op.Kind == SetService && !inPools(b.shadow.Pools, op.Key.VIP) || op.Kind == SetBackend &&
			b.shadow.Services[op.Key] == nil &&
			!inPools(b.shadow.Pools, op.Key.VIP) {
			held = append(held, op)
			continue
		}
		rest = append(rest, op)
	}
	all := slices.Concat(ops[:n], held, rest)
	for range held {
		errs = append(errs, errNoPool)
	}
	more := b.apply(ctx, rest)
	for i := range rest {
		errs = append(errs, errorAt(more, i))
	}
	return all, errs
}

var errNoPool = errors.New("its pool could not be made")

func inPools(pools map[netip.Prefix]Pool, a netip.Addr) bool {
	for p := range pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (b *Balancer) apply(ctx context.Context, ops []Op) []error {
	if len(ops) == 0 {
		return nil
	}
	start := time.Now()
	var errs []error
	b.write(ctx, func() { errs = b.driver.Apply(ctx, ops) })
	b.shadow.Apply(ops, errs)
	b.count.applied(ops, errs, start, time.Since(start))
	return errs
}

// followUp schedules what failed.
func (b *Balancer) followUp(now time.Time, ops []Op, errs []error) {
	drift := false
	for i, op := range ops {
		err := errorAt(errs, i)
		if err == nil {
			if op.Kind == DelService && len(b.shadow.Pools) > len(b.planner.Desired().Pools) {
				b.clock.by(alarmApply, now) // perhaps the last of a pool that is not wanted
			}
			continue
		}
		// A backend whose service could not be made is no sign of drift.
		drift = drift || errors.Is(err, ErrDrift) && (op.Kind != SetBackend || b.shadow.Services[op.Key] != nil)
		if op.Kind == SetPool || op.Kind == DelPool { // every diff looks at the pools
			continue
		}
		b.failed[op.Key] = err
	}
	err := firstError(ops, errs)
	if err == nil {
		if len(b.failed) == 0 {
			b.backoff = 0
			b.trouble.clear()
		}
		return
	}
	b.fail(now, "apply", err)
	wait := b.nextBackoff()
	b.clock.by(alarmRetry, now.Add(wait))
	if drift {
		b.suspect, b.fullAfter = true, now
		b.clock.by(alarmVerify, now.Add(wait))
	}
}

// policy answers Diff's questions.
func (b *Balancer) policy(now time.Time) Policy {
	var forbidden []netip.Prefix
	for prefix := range b.shadow.Pools {
		if b.planner.Forbids(prefix) {
			forbidden = append(forbidden, prefix)
		}
	}
	return Policy{
		Drained: func(k Key, a netip.AddrPort) bool {
			d := b.drains[k][a]
			return d != nil && (d.idle || !now.Before(d.deadline))
		},
		Keep: func(a netip.Addr) bool { return !b.settledNetwork(a, now) },
		Now: func(a netip.Addr) bool {
			return slices.ContainsFunc(forbidden, func(p netip.Prefix) bool { return p.Contains(a) })
		},
	}
}

// settledNetwork reports whether what is not planned for the address may go.
func (b *Balancer) settledNetwork(a netip.Addr, now time.Time) bool {
	if !now.Before(b.started.Add(b.cfg.Grace)) {
		return true
	}
	for prefix, pool := range b.planner.Desired().Pools {
		if prefix.Contains(a) {
			w := b.watches[pool.Network]
			return w != nil && w.view.Synced()
		}
	}
	return false
}

// settle brings the shadow's labels up to date and starts and ends drains.
func (b *Balancer) settle(k Key, now time.Time) {
	have, want := b.shadow.Services[k], b.planner.Desired().Services[k]
	if want != nil && have != nil {
		if have.Equal(want) {
			have = want
		} else {
			labelled := *have
			labelled.Network, labelled.Name, labelled.Drain = want.Network, want.Name, want.Drain
			have = &labelled
		}
		b.shadow.Services[k] = have
	}
	if have == want || have == nil || k.Proto == state.UDP {
		b.setDrains(k, nil, want, now)
		return
	}
	old, leaving := b.drains[k], map[netip.AddrPort]*drain{}
	for _, backend := range have.Backends {
		if backend.Weight > 0 || wanted(want, backend.Addr) {
			continue
		}
		d := old[backend.Addr]
		if d == nil {
			d = &drain{deadline: now.Add(drainTime(have, b.planner.node.Drain))}
			b.drainPoll.begin(now, b.cfg.DrainPoll)
			b.clock.by(alarmDrain, b.drainPoll.due)
			b.clock.by(alarmDrain, d.deadline)
		}
		leaving[backend.Addr] = d
	}
	b.setDrains(k, leaving, want, now)
}

func wanted(s *Service, a netip.AddrPort) bool {
	if s == nil {
		return false
	}
	_, ok := s.Backend(a)
	return ok
}
