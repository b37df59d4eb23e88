package gossip

import (
	"fmt"
	"math"
	"time"
)

// How a reported death is checked, and how such a check ends (S9, G11, S12). The
// pings themselves are sent by pings; the phase is set by liveness.

// checkInterval is how far apart the checks of one member begin, at least.
const checkInterval = time.Second

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
func (l *liveness) startCheck(m *member) {
	l.Stats.Verified++
	at := max(l.now, 1)
	if m.checkedAt > 0 {
		at = max(at, m.checkedAt+checkInterval)
	}
	m.checkedAt = at
	m.pingCount, m.checkUntil = 0, at+l.checkDuration(m)
	l.pings.schedule(m, at)
	l.setPhase(m, phaseVerify)
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
	}
}

// endCheck ends a check without an answer. The member is hidden, unless so many
// vanished at once that it is rather this node that is cut off (S12).
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
