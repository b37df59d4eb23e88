package gossip

import (
	"slices"
	"strings"
	"time"
)

// What is looked at once a second: members that are silent, and the streams of
// those that have been gone for long (S9).

// sweep looks once a second at the members of whom something may become by itself: it
// ages those that are gone (S9), pings those that are silent, and ends
// self-preservation. It looks at all others in turn.
func (l *liveness) sweep() {
	l.swept.kept, l.swept.recent = 0, 0
	l.pings.countNewcomers()
	var expired []*member
	for _, m := range l.nextLooks() {
		if l.look(m) {
			expired = append(expired, m)
		}
	}
	l.roster.recent = l.roster.listed + l.swept.recent
	for _, m := range expired {
		l.forget(m)
	}
	if l.swept.kept == 0 {
		l.setPreserve(false, "")
	}
}

// looksPerSecond is how many members are looked at in turn by each sweep: all of a
// usual mesh. Nothing that becomes of the others does so within less than minutes.
const looksPerSecond = 1024

// nextLooks returns the members at which a sweep looks, sorted.
func (l *liveness) nextLooks() []*member {
	r := l.roster
	if r.ordered.Len() <= looksPerSecond {
		return r.ordered.all()
	}
	turn := r.ordered.from(l.swept.next, looksPerSecond+1)
	if l.swept.next = ""; len(turn) > looksPerSecond {
		l.swept.next, turn = turn[looksPerSecond].id, turn[:looksPerSecond]
	}
	watched := r.watched.all()
	for _, m := range turn {
		if !m.lists.watched {
			watched = append(watched, m)
		}
	}
	slices.SortFunc(watched, func(a, b *member) int { return strings.Compare(string(a.id), string(b.id)) })
	return watched
}

// look is sweep for one member. It reports whether the member can be forgotten.
func (l *liveness) look(m *member) (expired bool) {
	age := l.now - m.since
	if !m.listed && m.seen && age < deadMemory {
		l.swept.recent++
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
			l.swept.kept++
		}
		if age > l.cfg.StopOfferingAfter || !m.proven && !l.preserve.on {
			l.observe(m, signExpired)
		}
	case phaseDead, phaseLeft, phaseAbsent:
		expired = l.retireStreams(m, age)
	}
	l.roster.unwatch(m)
	return expired
}

// checkUnlisted looks after a live member that the membership does not list, and
// whose death it therefore will not report. A silent one is pinged first, and
// checked when it does not answer.
func (l *liveness) checkUnlisted(m *member, age time.Duration) {
	silent := l.now - max(m.heardAt, m.pushedAt)
	switch {
	case m.listed || min(age, l.now-m.unlistedAt) <= unlistedFor:
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
		for _, t := range l.store.TablesOf(m.id) {
			t.SetOffered(m.id, false)
		}
	}
	if age > l.cfg.DropAfter && m.retired < dropped {
		m.retired = dropped
		for _, t := range l.store.TablesOf(m.id) {
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
