package lb

import (
	"context"
	"time"
)

// glances is how the balancer notices between two comparisons that somebody
// else writes to what is ours: it is told, or, as long as nobody tells it of the
// kernel's rules, asks for their number.
type glances struct {
	number uint64    // of the ruleset, as far as what others wrote has been looked at; 0: not known
	told   bool      // by Config.Touched or Config.Heard
	next   time.Time // no comparison because of that before
}

// glance compares with the kernel at once if somebody else wrote to it, and not
// again before the budget allows: who changes the kernel's rules all the time is
// not followed at every step.
func (b *Balancer) glance(ctx context.Context, now time.Time) {
	if b.asking() {
		b.clock.by(alarmGlance, now.Add(b.cfg.Glance))
	}
	switch {
	case !b.ready:
		return // alarmProbe is set, and sets this one
	case now.Before(b.glances.next):
		if b.glances.told {
			b.clock.by(alarmGlance, b.glances.next)
		}
		return
	case !b.glances.told && !b.moved(ctx):
		return
	}
	b.glances.told = false
	b.count.Prompted++
	rest := b.cfg.Prompts.Spend(func() { b.verify(ctx, now) })
	b.glances.next = time.Now().Add(min(rest, b.cfg.Verify))
}

// touched notes that somebody may have changed what is ours.
func (b *Balancer) touched(now time.Time) {
	b.glances.told = true
	b.clock.by(alarmGlance, later(now, b.glances.next))
}

// asking reports whether the kernel must be asked whether others wrote to its
// rules, and can be.
func (b *Balancer) asking() bool {
	_, numbered := b.driver.(Numbered)
	return numbered && b.cfg.Unheard()
}

// number returns that of the kernel's ruleset; 0: not known.
func (b *Balancer) number(ctx context.Context) uint64 {
	if d, ok := b.driver.(Numbered); ok {
		if n, err := d.Number(ctx); err == nil {
			return n
		}
	}
	return 0
}

// moved reports whether somebody else has written to the ruleset since it was
// last looked at, as far as that has to be asked.
func (b *Balancer) moved(ctx context.Context) bool {
	if !b.asking() {
		return false
	}
	now := b.number(ctx)
	return now != 0 && b.glances.number != 0 && now != b.glances.number
}

// write calls f, which writes to the kernel, and remembers that the balancer
// did so: what others wrote before is still to be looked at. (What they write
// meanwhile is not noticed by asking; who tells of it knows who wrote.)
func (b *Balancer) write(ctx context.Context, f func()) {
	others := b.moved(ctx)
	f()
	if !others && b.asking() {
		b.glances.number = b.number(ctx)
	}
}
