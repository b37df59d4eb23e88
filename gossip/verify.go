package gossip

import (
	"fmt"
	"math"
	"time"

	"meshd/state"
)

// How a reported death is checked, and how such a check ends (S9, G11, S12). The
// pings themselves are sent by pings; the phase is set by liveness.
//
// A death is reported to every node at about the same time. If all of them pinged the
// suspect, a host that was only slow would drown in pings. So in a mesh of more than
// sharedAbove about eight do, and the others wait for a sign of life, which the suspect
// gives all of them by a change of its own (see refutation). Before a node that waits hides the suspect, it pings it
// itself, once through another and once directly, and asks others what they have of it.

// checkInterval is how far apart the checks of one member begin, at least.
const checkInterval = time.Second

// pingersPerSuspect is how many nodes ping one suspect, on average, if there are more.
const pingersPerSuspect = 8

// observers is how many members live and have shown that they exist: to so many nodes a
// death is reported.
func (r *roster) observers() int { return r.livingProven("").Len() }

// sharedAbove is how many observers may all ping a suspect: so few are no storm, and
// find more ways to it.
const sharedAbove = 32

// sharesChecks reports whether the mesh is so large that not every node pings a
// suspect.
func (r *roster) sharesChecks() bool { return r.observers() > sharedAbove }

const (
	stallThreshold   = 50 * time.Millisecond // a timer that is later shows that this host stood still
	maxExtension     = 5 * time.Second       // a host that stands still all the time must hide the dead too
	falseAlarmMemory = 15 * time.Second
)

// maxUnanswered is how many pings in a row may go unanswered before others are
// asked to ping as well.
const maxUnanswered = 4

// startCheck starts to check whether a member lives, by pings from here and
// through others. Any packet of the member ends the check. A member that was
// checked a moment ago is not pinged again at once: a node that reports everybody
// dead without end must not make everybody ping.
func (l *liveness) startCheck(m *member, s sign) {
	l.Stats.Verified++
	m.waits = l.othersPing(m, s)
	at := max(l.now, 1)
	if m.checkedAt > 0 {
		at = max(at, m.checkedAt+checkInterval)
	}
	m.checkedAt = at
	m.pingCount, m.checkUntil = 0, at+l.checkDuration(m)
	if m.waits {
		l.Stats.ChecksWaited++
		at = max(at, m.checkUntil-l.lookFor())
	}
	l.pings.schedule(m, at)
	l.setPhase(m, phaseVerify)
}

// othersPing draws whether a check is left to others at first. It is not if others
// need not know of the suspicion, or if the suspect, of an older version, gives a
// sign of life only to those who ping it. Nor is it if this node has just pulled a
// change of the suspect: it missed the push, and so perhaps a sign of life.
func (l *liveness) othersPing(m *member, s sign) bool {
	n, stated := l.store.Node(m.id)
	switch {
	case s == signNamed, m.listed, !l.roster.sharesChecks(), stated && !n.Refutes:
		return false
	case m.pulledAt > 0 && l.now-m.pulledAt < l.refutationMemory():
		return false
	}
	return l.rng.IntN(l.roster.observers()) >= pingersPerSuspect
}

// lookFor is how long before the end of a check one that waited pings the suspect.
func (l *liveness) lookFor() time.Duration { return l.cfg.VerifyFor / 2 }

// refutationMemory is for how long a refutation counts more than a report: reports of one
// suspicion reach the nodes one after the other, and some after its refutation.
func (l *liveness) refutationMemory() time.Duration { return l.cfg.VerifyFor * 5 / 2 }

// putOff reports whether a report of a death is not believed for now, since the member
// has just refuted one. It is looked at again after as much time as the membership
// needs to list the member again, unless it does.
func (l *liveness) putOff(m *member) bool {
	last := m.refutedAt
	if m.phase != phaseAlive || m.pingAt > 0 || !l.roster.sharesChecks() || last == 0 ||
		l.now-last >= l.refutationMemory() {
		return false
	}
	l.Stats.ReportsPutOff++
	l.pings.lookAgain(m, last+2*l.refutationMemory())
	return true
}

// changePushed records that a change which a member made a moment ago was pushed to
// this node, perhaps by another: the member lives. A beacon is its refutation. Whoever
// pings the member itself finds out besides whether this node reaches it.
func (l *liveness) changePushed(id state.NodeID, beacon bool) {
	m := l.roster.members[id]
	if m == nil || !m.proven {
		return
	}
	m.pushedAt = l.now
	if beacon {
		m.refutedAt = l.now
	}
	if m.phase != phaseVerify || m.waits {
		l.observe(m, signPushed)
	}
}

// changePulled records that this node pulled a change of a member. It may be old, so
// it is no sign of life, but reason enough for one that waits for such a sign to ping
// the member itself.
func (l *liveness) changePulled(id state.NodeID) {
	m := l.roster.members[id]
	if m == nil || !m.proven {
		return
	}
	m.pulledAt = l.now
	if m.phase == phaseVerify && m.waits {
		m.waits, m.pingCount, m.checkUntil = false, 0, max(m.checkUntil, l.now+l.cfg.VerifyFor)
		l.pings.schedule(m, l.now)
	}
}

// checkDuration is how long a reported death is checked: so long that a host
// which stood still for a moment is not hidden, and so short that a crash is
// noticed in time. The membership's own suspicion takes longer in larger meshes,
// so the check takes less there. It takes the full Silence after a recent false
// alarm: a host that stands still over and over may just have been suspected for
// the last time that it did so.
func (l *liveness) checkDuration(m *member) time.Duration {
	if m.falseAlarmAt > 0 && l.now-m.falseAlarmAt < falseAlarmMemory {
		return max(l.cfg.VerifyFor, l.cfg.Silence)
	}
	decades := math.Log10(float64(max(l.roster.membershipSize()+1, 10)))
	return max(l.cfg.VerifyFor, l.cfg.Silence-time.Duration(decades*float64(l.cfg.Suspicion)))
}

// extendCheck gives a check more time when this node itself stood still: a ping
// that leaves late says nothing about the member that did not answer it.
func (l *liveness) extendCheck(m *member) {
	if m.phase == phaseVerify && l.now-m.pingAt > stallThreshold {
		m.checkUntil = min(max(m.checkUntil, l.now+l.cfg.VerifyFor), m.since+l.checkDuration(m)+maxExtension)
		if m.waits {
			m.pingCount = 0
		}
	}
}

// endCheck ends a check without an answer. The member is hidden, unless so many
// vanished at once that it is rather this node that is cut off (S12).
func (l *liveness) endCheck(m *member) {
	switch {
	case !m.listed && m.checkedAt > 0 && m.pushedAt >= m.checkedAt: // it lives, and does not answer this node
		l.observe(m, signRelayed)
		l.requestRejoin(m)
		return
	case m.listed && !m.proven && l.roster.hearing():
		l.observe(m, signUnproven)
		return
	case m.listed:
		l.observe(m, signSilent)
		return
	}
	g := &l.preserve
	if m.proven { // one that never existed says nothing about this node's links
		g.record(vanished{m.hostAddr(), l.now})
	}
	g.forget(l.now - l.cfg.PreserveWindow)
	gone, others := g.hosts(), l.countHosts()
	if m.seen && others >= l.cfg.MinMesh && float64(gone) > l.cfg.Preserve*float64(others) {
		l.setPreserve(true, fmt.Sprintf("%d of %d members vanished within %v: serving their last known endpoints", gone,
			others, l.cfg.PreserveWindow))
		l.keepVanished()
		l.observe(m, signCutOff)
		return
	}
	l.observe(m, signSilent)
}

// keepVanished has the members served again that were hidden before so many had
// vanished that it is rather this node that is cut off.
func (l *liveness) keepVanished() {
	if !l.preserve.hidden {
		return
	}
	l.preserve.hidden = false
	for _, o := range l.roster.watched.all() {
		if o.seen && o.phase == phaseDead && l.now-o.since <= l.cfg.PreserveWindow {
			l.observe(o, signCutOff)
		}
	}
}
