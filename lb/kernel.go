package lb

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// kernel is what a balancer programs: the driver that works here, with the table
// that it left there. It belongs to the balancer's goroutine.
type kernel struct {
	driver Driver // nil: none works here
	shadow *Table // what the kernel holds, as far as is known
	// ready reports whether the driver is set up and the shadow is true. Invariant:
	// ready implies that driver is not nil.
	ready bool
	// adopted reports whether the shadow has ever been true: what the kernel holds
	// instead is somebody else's doing from then on.
	adopted bool

	pollRules func() bool // whether changes of the rules are not announced (Config.Unheard)
	// seenNumber is the ruleset's number up to which the changes of others have been
	// looked at, or that of the last write; 0: not known.
	seenNumber uint64

	count *Counters // the balancer's; written here: what Apply did
}

// driverName returns the name of the driver, or "" if there is none.
func (k *kernel) driverName() string {
	if k.driver == nil {
		return ""
	}
	return k.driver.Name()
}

// numberPolled reports whether the kernel must be asked whether others wrote to
// its rules, and can be.
func (k *kernel) numberPolled() bool {
	_, numbered := k.driver.(Numbered)
	return numbered && k.pollRules()
}

// number returns that of the kernel's ruleset; 0: not known.
func (k *kernel) rulesetNumber(ctx context.Context) uint64 {
	if d, ok := k.driver.(Numbered); ok {
		if n, err := d.Number(ctx); err == nil {
			return n
		}
	}
	return 0
}

// othersWrote reports whether somebody else has written to the ruleset since
// seenNumber was taken, as far as that has to be asked.
func (k *kernel) othersWrote(ctx context.Context) bool {
	if !k.numberPolled() {
		return false
	}
	now := k.rulesetNumber(ctx)
	return now != 0 && k.seenNumber != 0 && now != k.seenNumber
}

// write calls f, which writes to the kernel, without taking that for a change by
// others. What others wrote before is still to be looked at. (What they write
// meanwhile is not noticed by asking; who announces changes knows who wrote.)
func (k *kernel) write(ctx context.Context, f func()) {
	others := k.othersWrote(ctx)
	f()
	if !others && k.numberPolled() {
		k.seenNumber = k.rulesetNumber(ctx)
	}
}

// untouched reports whether the kernel knows that nobody else changed its services.
func (k *kernel) untouched(ctx context.Context) bool {
	w, ok := k.driver.(Watchful)
	return ok && w.Untouched(ctx)
}

// runsAs returns the scheduler that picks the service's backends, if it is another
// than was asked for; else "".
func (k *kernel) runsAs(s *Service) string {
	if d, imitates := k.driver.(Imitator); imitates {
		if name := d.RunsAs(s); name != s.Scheduler {
			return name
		}
	}
	return ""
}

// snapshot reads back what the kernel holds, and repairs what is beside it.
func (k *kernel) snapshot(ctx context.Context) (actual *Table, err error) {
	k.write(ctx, func() { actual, err = k.driver.Snapshot(ctx) })
	return actual, err
}

// adopt makes a snapshot the shadow. Labels, which the kernel does not hold, are
// kept.
func (k *kernel) adopt(actual *Table) {
	actual.relabel(k.shadow)
	k.shadow = actual
}

// relabel takes the labels that the kernel does not hold from another table.
func (t *Table) relabel(from *Table) {
	for prefix, p := range t.Pools {
		p.Network = from.Pools[prefix].Network
		t.Pools[prefix] = p
	}
	for k, s := range t.Services {
		known := from.Services[k]
		switch {
		case known == nil:
		case known.Equal(s):
			t.Services[k] = known
		default:
			s.Network, s.Name, s.Drain = known.Network, known.Name, known.Drain
		}
	}
}

// apply carries out operations, in the kernel and in the shadow.
func (k *kernel) apply(ctx context.Context, ops []Op) []error {
	if len(ops) == 0 {
		return nil
	}
	start := time.Now()
	var errs []error
	k.write(ctx, func() { errs = k.driver.Apply(ctx, ops) })
	k.shadow.Apply(ops, errs)
	k.count.applied(ops, errs, start, time.Since(start))
	return errs
}

// applyOrdered applies pools before services, and leaves out services whose
// pool could not be made: without the guard they must not be there (L2). It
// returns the operations with their errors.
func (k *kernel) applyOrdered(ctx context.Context, ops []Op) ([]Op, []error) {
	n := 0
	for n < len(ops) && ops[n].Kind == SetPool {
		n++
	}
	if n == 0 {
		return ops, k.apply(ctx, ops)
	}
	errs := make([]error, n, len(ops))
	copy(errs, k.apply(ctx, ops[:n]))
	var withoutPool, rest []Op
	for _, op := range ops[n:] {
		if k.lacksPool(&op) {
			withoutPool = append(withoutPool, op)
		} else {
			rest = append(rest, op)
		}
	}
	all := slices.Concat(ops[:n], withoutPool, rest)
	for range withoutPool {
		errs = append(errs, errNoPool)
	}
	more := k.apply(ctx, rest)
	for i := range rest {
		errs = append(errs, errorAt(more, i))
	}
	return all, errs
}

var errNoPool = errors.New("its pool could not be made")

// lacksPool reports whether the operation sets a service, or a backend of a new
// one, whose pool is not in the kernel.
func (k *kernel) lacksPool(op *Op) bool {
	adds := op.Kind == SetService || op.Kind == SetBackend && k.shadow.Services[op.Key] == nil
	return adds && !inPools(k.shadow.Pools, op.Key.VIP)
}

func inPools(pools map[netip.Prefix]Pool, a netip.Addr) bool {
	for p := range pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
