package gossip

import (
	"math"
	"slices"
	"time"

	"meshd/state"
)

// schedulePing makes a member be pinged at a moment; 0: not at all.
func (c *Core) schedulePing(m *member, at time.Duration) {
	if m.pingAt = at; at > 0 {
		c.pinging[m.id] = m
	} else {
		delete(c.pinging, m.id)
	}
}

// pingVanishedAround pings those who vanished together with one that is back: a cut that
// healed brings them all (G2).
func (c *Core) pingVanishedAround(since time.Duration) {
	if c.now < c.noBurstBefore {
		return
	}
	c.noBurstBefore = c.now + 5*time.Second
	for _, m := range c.ordered {
		if (m.phase == phaseDead || m.phase == phaseKept) && m.pingAt == 0 && (m.since-since).Abs() < time.Minute &&
			m.addr.IsValid() {
			m.pingCount = maxPings - 4
			c.schedulePing(m, c.now+1+time.Duration(c.rng.Int64N(int64(300*time.Millisecond))))
		}
	}
}

// pingOneDead pings one random dead member now and then, for ever: the
// membership forgets the dead, and then nothing else would notice that a
// partition has healed (G2). All nodes together send each of the dead a few
// pings per second.
func (c *Core) pingOneDead() {
	if c.now < c.pingDeadAt {
		return
	}
	dead := 0
	for _, m := range c.ordered {
		if m.retryable() {
			dead++
		}
	}
	every := time.Second
	if dead > 0 {
		if c.pingDeadAt > 0 {
			c.sendPing(c.nthDead(c.rng.IntN(dead)))
		}
		every = max(every, time.Duration(c.membershipSize()+dead)*time.Second/time.Duration(5*dead))
	}
	c.pingDeadAt = c.now + c.jitter(min(every, time.Minute))
}

// startCheck starts to check whether a member lives: pings to it, and through
// others. Until then, and meanwhile, any packet of it ends the doubt. A member
// that was checked a moment ago is not pinged again at once: whoever reports
// everybody dead without end must not make everybody ping.
func (c *Core) startCheck(m *member) {
	c.Stats.Verified++
	at := max(c.now, 1)
	if m.checkedAt > 0 {
		at = max(at, m.checkedAt+checkInterval)
	}
	m.checkedAt = at
	m.pingCount, m.checkUntil = 0, at+c.checkDuration(m)
	c.schedulePing(m, at)
	c.setPhase(m, phaseVerify)
}

// checkDuration is how long a reported death is checked: long enough that a host
// which stood still for a moment is not hidden, and short enough that a crash
// is noticed in time. The membership waits longer in larger meshes, so this
// waits less; unless the node was thought dead just before: what the membership
// says of a host that comes and goes is of the last time.
func (c *Core) checkDuration(m *member) time.Duration {
	if m.falseAlarmAt > 0 && c.now-m.falseAlarmAt < falseAlarmMemory {
		return max(c.cfg.VerifyFor, c.cfg.Silence)
	}
	decades := math.Log10(float64(max(c.membershipSize()+1, 10)))
	return max(c.cfg.VerifyFor, c.cfg.Silence-time.Duration(decades*float64(c.cfg.Suspicion)))
}

// extendCheck gives a check more time when this node itself stood still: a ping that
// leaves late says nothing of the node that did not answer it.
func (c *Core) extendCheck(m *member) {
	if m.phase == phaseVerify && c.now-m.pingAt > stallThreshold {
		m.checkUntil = min(max(m.checkUntil, c.now+c.cfg.VerifyFor), m.since+c.checkDuration(m)+maxExtension)
	}
}

// pingInterval spaces the pings of a check; slower once the node is hidden.
func (c *Core) pingInterval(m *member) time.Duration {
	switch {
	case (m.phase == phaseVerify || m.candidate.known()) && m.pingCount < 8:
		return c.cfg.VerifyFor / 7
	case m.phase == phaseVerify:
		return c.cfg.VerifyFor / 3
	case m.pingCount < 16:
		return 250 * time.Millisecond
	}
	return 2 * time.Second
}

// runChecks sends the pings that are due and judges those whose time is up.
func (c *Core) runChecks() {
	for _, id := range c.pinged() {
		m := c.members[id]
		if c.now < m.pingAt {
			continue
		}
		c.extendCheck(m)
		if m.phase == phaseVerify && c.now >= m.checkUntil {
			c.endCheck(m)
		}
		c.resolveAddr(m)
		if m.phase == phaseAlive && m.pingCount >= maxUnanswered && !m.candidate.known() {
			c.observe(m, signUnanswered)
			continue
		}
		if m.pingCount++; m.pingCount > maxPings && m.phase != phaseVerify && m.phase != phaseRelayed {
			c.schedulePing(m, 0)
			continue
		}
		next := c.now + c.pingInterval(m)
		if m.phase == phaseVerify {
			next = min(next, m.checkUntil)
		}
		c.schedulePing(m, next)
		c.sendPing(m)
	}
}

// pinged returns the members being pinged, sorted.
func (c *Core) pinged() []state.NodeID {
	if len(c.pinging) == 0 {
		return nil
	}
	ids := make([]state.NodeID, 0, len(c.pinging))
	for id := range c.pinging {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (c *Core) nextPing() time.Duration {
	next := c.pingDeadAt
	if len(c.members) == 0 {
		next = time.Duration(1<<63 - 1)
	}
	for _, m := range c.pinging {
		next = min(next, m.pingAt)
	}
	return next
}
