package lb

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// drain is a backend with weight 0 that is not wanted any more (L5).
type drain struct {
	deadline time.Time
	idle     bool
}

// setDrains replaces the drains of a service, and counts those that ended.
func (b *Balancer) setDrains(k Key, drains map[netip.AddrPort]*drain, want *Service, now time.Time) {
	for a, d := range b.drains[k] {
		if drains[a] == nil {
			b.count.drained(d, wanted(want, a), now)
		}
	}
	b.draining += len(drains) - len(b.drains[k])
	if len(drains) == 0 {
		delete(b.drains, k)
		return
	}
	b.drains[k] = drains
}

func drainTime(s *Service, fallback time.Duration) time.Duration {
	if s.Drain > 0 {
		return s.Drain
	}
	return fallback // adopted, so without labels
}

const (
	// drainPollGrowth is up to how many times Config.DrainPoll the time between
	// two looks at the same draining backends grows, doubled each time.
	drainPollGrowth = 8
	// drainShare is the part of the time that looks may take: a look that took t
	// is followed by none for drainShare times t.
	drainShare = 10
)

// drainPoll says when to look at draining backends: soon after a new one, more
// and more seldom while nothing comes of it. A look may be dear: drivers count
// in a table of all connections of the host.
type drainPoll struct {
	wait    time.Duration // before the next look
	due     time.Time     // of the next look; may lie in the past
	resting time.Time     // no look before
}

// begin makes sure that a look comes within first.
func (p *drainPoll) begin(now time.Time, first time.Duration) {
	p.wait = first
	at := now.Add(first)
	if p.due.After(now) && p.due.Before(at) {
		at = p.due
	}
	p.due = latest(at, p.resting)
}

// looked notes a look that began at start and took so long.
func (p *drainPoll) looked(start time.Time, took, first time.Duration) {
	p.wait = min(max(2*p.wait, first), drainPollGrowth*first)
	p.resting = start.Add((1 + drainShare) * took)
	p.due = latest(start.Add(p.wait), p.resting)
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// pollDrains looks for backends that are idle, and ends drains that are over.
func (b *Balancer) pollDrains(ctx context.Context, now time.Time) {
	if len(b.drains) == 0 {
		return
	}
	if !now.Before(b.drainPoll.due) {
		start := time.Now()
		if b.ready {
			b.lookForIdle(ctx)
		}
		b.drainPoll.looked(now, time.Since(start), b.cfg.DrainPoll) // also while the driver does not work: it will again
	}
	b.clock.by(alarmDrain, b.drainPoll.due)
	for k, drains := range b.drains {
		for _, d := range drains {
			if now.Before(d.deadline) {
				b.clock.by(alarmDrain, d.deadline)
			}
			if b.ready && (d.idle || !now.Before(d.deadline)) {
				b.dirty[k] = struct{}{}
				b.clock.by(alarmApply, now)
			}
		}
	}
}

// lookForIdle asks the driver which draining backends have no connections.
func (b *Balancer) lookForIdle(ctx context.Context) {
	usage, err := b.driver.Usage(ctx, slices.SortedFunc(maps.Keys(b.drains), Key.Compare))
	if err != nil {
		b.cfg.Log.Debug("connections of draining backends unknown; waiting for the deadline", slog.Any("err", err))
	}
	for k, drains := range b.drains {
		u, known := usage[k]
		for backend, d := range drains {
			d.idle = err == nil && known && u.Backends[backend].Active == 0
		}
	}
}
