package lb

import (
	"context"
	"time"
)

// glances is how the balancer notices between two comparisons that somebody
// else writes to what is ours: by the number of the kernel's ruleset, and by
// what the host's watcher hears.
type glances struct {
	number   uint64        // of the ruleset, as far as what others wrote has been looked at; 0: not known
	told     bool          // by Config.Touched
	prompted time.Time     // the latest comparison because of that
	wait     time.Duration // after it, until the next
}

// glance compares with the kernel at once if somebody else wrote to it. Each
// time that others go on writing, it waits twice as long, up to Config.Verify:
// who changes the kernel's rules all the time is not followed at every step.
func (b *Balancer) glance(ctx context.Context, now time.Time) {
	if _, ok := b.driver.(Numbered); ok {
		b.clock.by(alarmGlance, now.Add(b.cfg.Glance))
	}
	if next := b.glances.prompted.Add(b.glances.wait); !b.ready || now.Before(next) {
		return
	}
	if !b.glances.told && !b.moved(ctx) {
		b.glances.wait = 0
		return
	}
	b.glances.told, b.glances.prompted = false, now
	b.glances.wait = min(max(2*b.glances.wait, b.cfg.Glance), b.cfg.Verify)
	b.count.Prompted++
	b.verify(ctx, now)
}

// touched notes that the host's watcher heard of a change to what is ours.
func (b *Balancer) touched(now time.Time) {
	b.glances.told = true
	next := b.glances.prompted.Add(b.glances.wait)
	if next.Before(now) {
		next = now
	}
	b.clock.by(alarmGlance, next)
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
// last looked at.
func (b *Balancer) moved(ctx context.Context) bool {
	now := b.number(ctx)
	return now != 0 && b.glances.number != 0 && now != b.glances.number
}

// write calls f, which writes to the kernel, and remembers that the balancer
// did so: what others wrote before is still to be looked at.
func (b *Balancer) write(ctx context.Context, f func()) {
	others := b.moved(ctx)
	f()
	if !others {
		b.glances.number = b.number(ctx)
	}
}
