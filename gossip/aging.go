package gossip

import "time"

// What is looked at once a second: members that are silent, and the streams of
// those that have been gone for long (S9).

// sweep ages the dead (S9), and ends self-preservation.
func (l *liveness) sweep() {
	kept, recent := 0, 0 // kept are of those who count
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

// checkUnlisted looks after a live member that the membership does not list,
// and of whose death it will not tell: when silent it is pinged, and only when
// that is not answered it is in doubt.
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
		l.requestRejoin(m) // one that speaks, too: its tables are no proof that it is listed
	}
}

// unlistedFor is how long a member that only we know of may be silent before
// it is checked.
const unlistedFor = 2 * time.Second

// retireStreams puts the streams of a member away that has been gone for long, and reports
// whether it is to be forgotten.
func (l *liveness) retireStreams(m *member, age time.Duration) (expired bool) {
	if age > l.cfg.StopOfferingAfter && m.retired < 1 {
		m.offered, m.retired = false, 1
		for _, t := range l.store.Tables() {
			t.SetOffered(m.id, false)
		}
	}
	if age > l.cfg.DropAfter && m.retired < 2 {
		m.retired = 2
		for _, t := range l.store.Tables() {
			t.Bury(m.id)
		}
	}
	return age > l.cfg.DropAfter+l.cfg.Graves
}

// forget forgets a member, and all that is kept of its streams.
func (l *liveness) forget(m *member) {
	for _, t := range l.store.Tables() {
		t.Exhume(m.id)
	}
	l.roster.remove(m)
	l.pings.schedule(m, 0)
	l.goodbyes.forget(m.id)
	l.store.Forget(m.id)
}
