package gossip

import "time"

// What is looked at once a second: members that are silent, and the streams of
// those that have been gone for long (S9).

// sweep looks at every member once a second: it ages those that are gone (S9),
// pings those that are silent, and ends self-preservation.
func (l *liveness) sweep() {
	kept, recent := 0, 0 // kept are proven members only
	l.pings.countNewcomers()
	var expired []*member
	for _, m := range l.roster.ordered {
		age := l.now - m.since
		if m.listed || m.seen && age < deadMemory {
			recent++
		}
		l.resolveAddr(m)
		switch m.phase {
		case phaseAlive, phaseRelayed:
			l.checkUnlisted(m, age)
			if m.phase == phaseAlive {
				l.checkIfUnanswered(m)
			}
		case phaseKept:
			if m.proven {
				kept++
			}
			if age > l.cfg.StopOfferingAfter || !m.proven && !l.preserve.on {
				l.observe(m, signExpired)
			}
		case phaseDead, phaseLeft, phaseAbsent:
			if l.retireStreams(m, age) {
				expired = append(expired, m)
			}
		}
	}
	l.roster.recent = recent
	for _, m := range expired {
		l.forget(m)
	}
	if kept == 0 {
		l.setPreserve(false, "")
	}
}

// checkUnlisted looks after a live member that the membership does not list, and
// whose death it therefore will not report. A silent one is pinged first, and
// checked when it does not answer.
func (l *liveness) checkUnlisted(m *member, age time.Duration) {
	silent := l.now - m.heardAt
	switch {
	case m.listed || age <= unlistedFor:
	case silent > 2*unlistedFor:
		l.observe(m, signUnanswered)
	case silent > unlistedFor:
		l.pings.send(m)
		fallthrough
	default:
		l.requestRejoin(m) // also if it speaks: that its tables arrive does not show that it is listed
	}
}

// unlistedFor is how long a member that only this node knows may be silent before
// it is pinged.
const unlistedFor = 2 * time.Second

// retireStreams puts the streams of a member away that has been gone for age,
// step by step, and reports whether the member itself can be forgotten.
func (l *liveness) retireStreams(m *member, age time.Duration) (expired bool) {
	if age > l.cfg.StopOfferingAfter && m.retired < notOffered {
		m.offered, m.retired = false, notOffered
		for _, t := range l.store.Tables() {
			t.SetOffered(m.id, false)
		}
	}
	if age > l.cfg.DropAfter && m.retired < dropped {
		m.retired = dropped
		for _, t := range l.store.Tables() {
			t.Retire(m.id)
		}
	}
	return age > l.cfg.DropAfter+l.cfg.Graves
}

// forget removes a member, and all that is kept of its streams.
func (l *liveness) forget(m *member) {
	for _, t := range l.store.Tables() {
		t.Readmit(m.id)
	}
	l.roster.remove(m)
	l.pings.schedule(m, 0)
	l.goodbyes.forget(m.id)
	l.store.Forget(m.id)
}
