package gossip

import "time"

// This file owns when tables are compared: often after news, seldom at rest (G4).

// pace is when repair compares.
type pace struct {
	*env

	roundAt   time.Duration // when the next round of repair is due
	busyUntil time.Duration // until then news makes the rounds short
}

// newsCame makes rounds short for a while.
func (p *pace) newsCame() {
	p.busyUntil = p.now + p.cfg.BusyFor
	if p.roundAt > p.now+p.cfg.RepairBusy {
		p.roundAt = p.now + p.jitter(p.cfg.RepairBusy)
	}
}

// nextRound sets when the round after this one is due.
func (p *pace) nextRound() {
	every := p.cfg.RepairIdle
	if p.now < p.busyUntil {
		every = p.cfg.RepairBusy
	}
	p.roundAt = p.now + p.jitter(every)
}
