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
	gone   []vanished // within CoreConfig.PreserveWindow, oldest first
	from   map[netip.AddrPort]int
	on     bool
	hidden bool // a member was hidden since keepVanished
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
// at once (S12).
func (l *liveness) countHosts() int { return l.roster.hosts.len(l.now) }

// setPreserve turns self-preservation on or off.
func (l *liveness) setPreserve(on bool, reason string) {
	if l.preserve.on != on {
		l.preserve.on = on
		l.outbox.emit(Event{Kind: EventPreserve, Reason: reason})
	}
}
