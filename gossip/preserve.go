package gossip

import (
	"net/netip"
	"time"
)

// Self-preservation (S12): when most members vanish at once, it is rather this
// node that is cut off. This file owns the memory of who vanished.

// preservation is the memory of members that vanished (S12).
//
// Invariant: from[host] is how many of gone were at that host.
type preservation struct {
	gone []vanished // within CoreConfig.PreserveWindow, oldest first
	from map[netip.AddrPort]int
	on   bool

	hostCount int           // the result of countHosts
	countedAt time.Duration // at that time
}

// vanished is a member that was found dead.
type vanished struct {
	host netip.AddrPort
	at   time.Duration
}

// record records that a member vanished. The cost does not grow with the number
// that did: thousands may vanish in one step.
func (p *preservation) record(v vanished) {
	if p.from == nil {
		p.from = map[netip.AddrPort]int{}
	}
	p.gone = append(p.gone, v)
	p.from[v.host]++
}

// forget forgets the members that vanished before a time.
func (p *preservation) forget(before time.Duration) {
	for len(p.gone) > 0 && p.gone[0].at < before {
		host := p.gone[0].host
		p.gone = p.gone[1:]
		if p.from[host]--; p.from[host] == 0 {
			delete(p.from, host)
		}
	}
}

// hosts is from how many hosts members vanished.
func (p *preservation) hosts() int { return len(p.from) }

// countHosts is at how many hosts there are members that count when most vanish
// at once (S12). It counts hosts, since names cost nothing, and many at one
// address that go together say nothing about this node's links. It counts once
// per step: within a step members only vanish, and those count on for a while.
func (l *liveness) countHosts() int {
	g := &l.preserve
	if g.countedAt == l.now && l.now > 0 {
		return g.hostCount
	}
	at := map[netip.AddrPort]struct{}{}
	for _, o := range l.roster.ordered {
		if o.proven && o.phase != phaseLeft && (o.phase != phaseDead || l.now-o.since <= l.cfg.PreserveWindow) {
			at[o.host()] = struct{}{}
		}
	}
	g.countedAt, g.hostCount = l.now, len(at)
	return g.hostCount
}

// setPreserve turns self-preservation on or off.
func (l *liveness) setPreserve(on bool, reason string) {
	if l.preserve.on != on {
		l.preserve.on = on
		l.outbox.emit(Event{Kind: EventPreserve, Reason: reason})
	}
}
