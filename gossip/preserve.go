package gossip

import (
	"net/netip"
	"time"
)

// Self-preservation (S12): when most members vanish at once, it is rather this
// node that is cut off. This file owns the memory of who vanished.

// preservation is S12's memory.
type preservation struct {
	gone []vanished             // within the window, the oldest first
	from map[netip.AddrPort]int // how many of gone were at each host
	on   bool

	countedAt time.Duration // when others was counted
	hostCount int
}

// vanished is a member that was found dead.
type vanished struct {
	host netip.AddrPort
	at   time.Duration
}

// record notes that a member vanished. What it costs does not grow with how many
// did: thousands may in one step.
func (p *preservation) record(v vanished) {
	if p.from == nil {
		p.from = map[netip.AddrPort]int{}
	}
	p.gone = append(p.gone, v)
	p.from[v.host]++
}

// forget forgets who vanished before a moment.
func (p *preservation) forget(before time.Duration) {
	for len(p.gone) > 0 && p.gone[0].at < before {
		host := p.gone[0].host
		p.gone = p.gone[1:]
		if p.from[host]--; p.from[host] == 0 {
			delete(p.from, host)
		}
	}
}

// hosts is from how many addresses members vanished.
func (p *preservation) hosts() int { return len(p.from) }

// countHosts is at how many addresses there are members that count when it is to be
// judged whether most vanished at once (S12): names cost nothing, and many of them
// at one address that go at once say nothing of our links. It is counted once in a
// step, in which members only vanish, and who did counts on for a while.
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

func (l *liveness) setPreserve(on bool, reason string) {
	if l.preserve.on != on {
		l.preserve.on = on
		l.outbox.emit(Event{Kind: EventPreserve, Reason: reason})
	}
}
