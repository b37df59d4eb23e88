package gossip

import (
	"fmt"
	"time"
)

// endCheck ends a check without an answer: the node is hidden, unless so many
// vanished at once that it is rather us (S12).
func (l *liveness) endCheck(m *member) {
	switch {
	case m.listed && !m.proven && l.roster.hearing():
		l.observe(m, signUnproven)
		return
	case m.listed:
		l.observe(m, signSilent)
		return
	}
	g := &l.preserve
	if m.proven { // who was gone before we came, or never was, tells nothing of our links
		g.record(vanished{m.host(), l.now})
	}
	g.forget(l.now - l.cfg.PreserveWindow)
	gone, others := g.hosts(), l.countHosts()
	if m.seen && others >= l.cfg.MinMesh && float64(gone) > l.cfg.Preserve*float64(others) {
		l.setPreserve(true, fmt.Sprintf("%d of %d members vanished within %v: serving their last known endpoints", gone,
			others, l.cfg.PreserveWindow))
		for _, o := range l.roster.ordered {
			if o.seen && o.phase == phaseDead && l.now-o.since <= l.cfg.PreserveWindow {
				l.observe(o, signCutOff)
			}
		}
		l.observe(m, signCutOff)
		return
	}
	l.observe(m, signSilent)
}

// provenCount is how many of the members showed that they are there, at least one:
// what depends on the size of the mesh depends on that, not on what is said.
func (r *roster) provenCount() int {
	n := 0
	for _, m := range r.ordered {
		if m.proven {
			n++
		}
	}
	return max(n, 1)
}

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
