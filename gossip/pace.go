package gossip

import "time"

// This file owns when tables are compared: often after news, seldom at rest (G4).

// pace is when tables are compared.
type pace struct {
	*env

	roundAt   time.Duration // when the next round of repair is due
	busyUntil time.Duration // until then rounds follow each other quickly
}

// newsCame makes rounds follow each other quickly for a while.
func (p *pace) newsCame() {
	p.busyUntil = p.now + p.cfg.BusyFor
	if p.roundAt > p.now+p.cfg.RepairBusy {
		p.roundAt = p.now + p.jitter(p.cfg.RepairBusy)
	}
}

// nextRound sets when the next round is due.
func (p *pace) nextRound() {
	every := p.cfg.RepairIdle
	if p.now < p.busyUntil {
		every = p.cfg.RepairBusy
	}
	p.roundAt = p.now + p.jitter(every)
}
