package gossip

import (
	"math"
	"slices"
	"time"

	"meshd/state"
)

// schedule makes a member be pinged at a moment; 0: not at all.
func (p *pings) schedule(m *member, at time.Duration) {
	if m.pingAt = at; at > 0 {
		p.pinging[m.id] = m
	} else {
		delete(p.pinging, m.id)
	}
}

// pingVanishedAround pings those who vanished together with one that is back: a cut that
// healed brings them all (G2).
func (p *pings) pingVanishedAround(since time.Duration) {
	if p.now < p.noBurstBefore {
		return
	}
	p.noBurstBefore = p.now + 5*time.Second
	for _, m := range p.roster.ordered {
		if (m.phase == phaseDead || m.phase == phaseKept) && m.pingAt == 0 && (m.since-since).Abs() < time.Minute &&
			m.addr.IsValid() {
			m.pingCount = maxPings - 4
			p.schedule(m, p.now+1+time.Duration(p.rng.Int64N(int64(300*time.Millisecond))))
		}
	}
}

// pingOneDead pings one random dead member now and then, for ever: the
// membership forgets the dead, and then nothing else would notice that a
// partition has healed (G2). All nodes together send each of the dead a few
// pings per second.
func (p *pings) pingOneDead() {
	if p.now < p.pingDeadAt {
		return
	}
	dead := 0
	for _, m := range p.roster.ordered {
		if m.retryable() {
			dead++
		}
	}
	every := time.Second
	if dead > 0 {
		if p.pingDeadAt > 0 {
			p.send(p.nthDead(p.rng.IntN(dead)))
		}
		every = max(every, time.Duration(p.roster.membershipSize()+dead)*time.Second/time.Duration(5*dead))
	}
	p.pingDeadAt = p.now + p.jitter(min(every, time.Minute))
}

// startCheck starts to check whether a member lives: pings to it, and through
// others. Until then, and meanwhile, any packet of it ends the doubt. A member
// that was checked a moment ago is not pinged again at once: whoever reports
// everybody dead without end must not make everybody ping.
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

// checkDuration is how long a reported death is checked: long enough that a host
// which stood still for a moment is not hidden, and short enough that a crash
// is noticed in time. The membership waits longer in larger meshes, so this
// waits less; unless the node was thought dead just before: what the membership
// says of a host that comes and goes is of the last time.
func (l *liveness) checkDuration(m *member) time.Duration {
	if m.falseAlarmAt > 0 && l.now-m.falseAlarmAt < falseAlarmMemory {
		return max(l.cfg.VerifyFor, l.cfg.Silence)
	}
	decades := math.Log10(float64(max(l.roster.membershipSize()+1, 10)))
	return max(l.cfg.VerifyFor, l.cfg.Silence-time.Duration(decades*float64(l.cfg.Suspicion)))
}

// extendCheck gives a check more time when this node itself stood still: a ping that
// leaves late says nothing of the node that did not answer it.
func (l *liveness) extendCheck(m *member) {
	if m.phase == phaseVerify && l.now-m.pingAt > stallThreshold {
		m.checkUntil = min(max(m.checkUntil, l.now+l.cfg.VerifyFor), m.since+l.checkDuration(m)+maxExtension)
	}
}

// interval spaces the pings of a check; slower once the node is hidden.
func (p *pings) interval(m *member) time.Duration {
	switch {
	case (m.phase == phaseVerify || m.candidate.known()) && m.pingCount < 8:
		return p.cfg.VerifyFor / 7
	case m.phase == phaseVerify:
		return p.cfg.VerifyFor / 3
	case m.pingCount < 16:
		return 250 * time.Millisecond
	}
	return 2 * time.Second
}

// run sends the pings that are due and judges those whose time is up.
func (k *checks) run() {
	for _, id := range k.pings.ids() {
		m := k.roster.members[id]
		if k.now < m.pingAt {
			continue
		}
		k.liveness.extendCheck(m)
		if m.phase == phaseVerify && k.now >= m.checkUntil {
			k.liveness.endCheck(m)
		}
		k.liveness.resolveAddr(m)
		if m.phase == phaseAlive && m.pingCount >= maxUnanswered && !m.candidate.known() {
			k.liveness.observe(m, signUnanswered)
			continue
		}
		if m.pingCount++; m.pingCount > maxPings && m.phase != phaseVerify && m.phase != phaseRelayed {
			k.pings.schedule(m, 0)
			continue
		}
		next := k.now + k.pings.interval(m)
		if m.phase == phaseVerify {
			next = min(next, m.checkUntil)
		}
		k.pings.schedule(m, next)
		k.pings.send(m)
	}
}

// ids returns the members being pinged, sorted.
func (p *pings) ids() []state.NodeID {
	if len(p.pinging) == 0 {
		return nil
	}
	ids := make([]state.NodeID, 0, len(p.pinging))
	for id := range p.pinging {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (p *pings) next() time.Duration {
	next := p.pingDeadAt
	if len(p.roster.members) == 0 {
		next = time.Duration(1<<63 - 1)
	}
	for _, m := range p.pinging {
		next = min(next, m.pingAt)
	}
	return next
}

// pings is the schedule of pings.
type pings struct {
	*env
	roster *roster
	outbox *outbox

	pinging       map[state.NodeID]*member // those with a pingAt
	pingDeadAt    time.Duration            // when one of the dead is pinged again
	noBurstBefore time.Duration            // pingVanishedAround rests until then
	relayBudget   bucket                   // what others were asked to ping
	newcomers     int                      // how many newcomers are being pinged, see needsProof
}
