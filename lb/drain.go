package lb

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// drains are the backends with weight 0 that only wait for their connections to
// end (L5). It belongs to the balancer's goroutine.
type drains struct {
	fallback time.Duration // drain time of services without one of their own
	log      *slog.Logger

	byService map[Key]map[netip.AddrPort]*drain
	backends  int       // in byService
	poll      drainPoll // when the driver is asked for connections
	ended     [4]uint64 // drains that ended, by DrainOutcome
}

// drain is one draining backend of a service.
type drain struct {
	deadline time.Time // it goes then, connections or not
	idle     bool      // it had no connections at the latest look
}

// usageFunc asks the driver for counters, like Driver.Usage.
type usageFunc func([]Key) (map[Key]Usage, error)

func newDrains(first, fallback time.Duration, log *slog.Logger) drains {
	return drains{
		fallback: fallback, log: log, byService: map[Key]map[netip.AddrPort]*drain{}, poll: drainPoll{first: first},
	}
}

// update starts drains for the backends of have, a service in the kernel, that
// have weight 0 and are not in want, the planned service or nil, and ends all
// others. It returns when to look at those that begin; the zero Time if none does.
func (d *drains) update(k Key, have, want *Service, now time.Time) (look time.Time) {
	old, leaving := d.byService[k], map[netip.AddrPort]*drain{}
	for _, backend := range have.Backends {
		if backend.Weight > 0 || want.hasBackend(backend.Addr) {
			continue
		}
		one := old[backend.Addr]
		if one == nil {
			one = &drain{deadline: now.Add(d.timeFor(have))}
			d.poll.begin(now)
			look = earliest(look, earliest(d.poll.due, one.deadline))
		}
		leaving[backend.Addr] = one
	}
	d.replace(k, leaving, want, now)
	return look
}

// end ends the drains of a service.
func (d *drains) end(k Key, want *Service, now time.Time) { d.replace(k, nil, want, now) }

// replace replaces the drains of a service, and counts those that ended.
func (d *drains) replace(k Key, with map[netip.AddrPort]*drain, want *Service, now time.Time) {
	for a, one := range d.byService[k] {
		if with[a] == nil {
			d.ended[one.outcome(want.hasBackend(a), now)]++
		}
	}
	d.backends += len(with) - len(d.byService[k])
	if len(with) == 0 {
		delete(d.byService, k)
		return
	}
	d.byService[k] = with
}

// outcome says how a drain ended; planned: the backend is in the plan again.
func (d *drain) outcome(planned bool, now time.Time) DrainOutcome {
	switch {
	case planned:
		return DrainReturned
	case d.idle:
		return DrainIdle
	case !now.Before(d.deadline):
		return DrainDeadline
	}
	return DrainGone
}

// over reports whether the backend is idle, or its time has passed.
func (d *drain) over(now time.Time) bool { return d.idle || !now.Before(d.deadline) }

// over reports whether a backend drains, and may go.
func (d *drains) over(k Key, a netip.AddrPort, now time.Time) bool {
	one := d.byService[k][a]
	return one != nil && one.over(now)
}

// deadline returns when the backend goes at the latest; zero: it does not drain.
func (d *drains) deadline(k Key, a netip.AddrPort) time.Time {
	if one := d.byService[k][a]; one != nil {
		return one.deadline
	}
	return time.Time{}
}

// timeFor returns how long a service's backends drain. One that was adopted has
// no label that says so.
func (d *drains) timeFor(s *Service) time.Duration {
	if s.Drain > 0 {
		return s.Drain
	}
	return d.fallback
}

// step looks at the connections of draining backends if that is due. It returns
// the services some of whose drains are over, and when to come back, or the zero
// Time. Without a driver that works usage is nil: then nothing is over.
func (d *drains) step(now time.Time, usage usageFunc) (over []Key, next time.Time) {
	if len(d.byService) == 0 {
		return nil, time.Time{}
	}
	if !now.Before(d.poll.due) {
		start := time.Now()
		if usage != nil {
			d.lookForIdle(usage)
		}
		d.poll.looked(now, time.Since(start)) // also without a driver: there may be one again
	}
	next = d.poll.due
	for k, drains := range d.byService {
		ready := false
		for _, one := range drains {
			if now.Before(one.deadline) {
				next = earliest(next, one.deadline)
			}
			ready = ready || usage != nil && one.over(now)
		}
		if ready {
			over = append(over, k)
		}
	}
	return over, next
}

// lookForIdle asks which draining backends have no connections. An error leaves
// all of them to their deadlines.
func (d *drains) lookForIdle(usage usageFunc) {
	counters, err := usage(slices.SortedFunc(maps.Keys(d.byService), Key.Compare))
	if err != nil {
		d.log.Debug("connections of draining backends are unknown; they go at their deadline", slog.Any("error", err))
	}
	for k, drains := range d.byService {
		u, known := counters[k]
		for backend, one := range drains {
			one.idle = err == nil && known && u.Backends[backend].Active == 0
		}
	}
}

const (
	// drainPollGrowth is up to how many times Config.DrainPoll the time between
	// two looks at the same draining backends grows, doubled each time.
	drainPollGrowth = 8
	// drainShare is the part of the time that looks may take: a look that took t
	// is followed by none for drainShare times t.
	drainShare = 10
)

// drainPoll says when to look at draining backends: soon after a new one, and less
// and less often while they stay busy. A look may be expensive, since drivers count
// in a table of all connections of the host.
type drainPoll struct {
	first time.Duration // between the begin of a drain and its first look

	wait      time.Duration // before the next look
	due       time.Time     // of the next look; may lie in the past
	notBefore time.Time     // no look before
}

// begin makes sure that a look comes soon, as a drain has begun.
func (p *drainPoll) begin(now time.Time) {
	p.wait = p.first
	at := now.Add(p.first)
	if p.due.After(now) && p.due.Before(at) {
		at = p.due
	}
	p.due = later(at, p.notBefore)
}

// looked plans the next look after one that began at start.
func (p *drainPoll) looked(start time.Time, took time.Duration) {
	p.wait = min(max(2*p.wait, p.first), drainPollGrowth*p.first)
	p.notBefore = start.Add((1 + drainShare) * took)
	p.due = later(start.Add(p.wait), p.notBefore)
}
