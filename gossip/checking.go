package gossip

import (
	"math"
	"slices"
	"time"

	"meshd/state"
)

// pingLater makes a member be pinged at a moment; 0: not at all.
func (c *Core) pingLater(m *member, at time.Duration) {
	if m.pingAt = at; at > 0 {
		c.pinging[m.id] = m
	} else {
		delete(c.pinging, m.id)
	}
}

// wave pings those who vanished together with one that is back: a cut that
// healed brings them all (G2).
func (c *Core) wave(since time.Duration) {
	if c.now < c.waveAt {
		return
	}
	c.waveAt = c.now + 5*time.Second
	for _, m := range c.ordered {
		if (m.phase == phaseDead || m.phase == phaseKept) && m.pingAt == 0 && (m.since-since).Abs() < time.Minute &&
			m.addr.IsValid() {
			m.pings = maxPings - 4
			c.pingLater(m, c.now+1+time.Duration(c.rng.Int64N(int64(300*time.Millisecond))))
		}
	}
}

// pingStray pings one random dead member now and then, for ever: the
// membership forgets the dead, and then nothing else would notice that a
// partition has healed (G2). All nodes together send each of the dead a few
// pings per second.
func (c *Core) pingStray() {
	if c.now < c.strayAt {
		return
	}
	dead := 0
	for _, m := range c.ordered {
		if m.stray() {
			dead++
		}
	}
	every := time.Second
	if dead > 0 {
		if c.strayAt > 0 {
			c.ping(c.nthStray(c.rng.IntN(dead)))
		}
		every = max(every, time.Duration(c.crowd()+dead)*time.Second/time.Duration(5*dead))
	}
	c.strayAt = c.now + c.jitter(min(every, time.Minute))
}

// verify starts to check whether a member lives: pings to it, and through
// others. Until then, and meanwhile, any packet of it ends the doubt. A member
// that was checked a moment ago is not pinged again at once: whoever reports
// everybody dead without end must not make everybody ping.
func (c *Core) verify(m *member) {
	c.Stats.Verified++
	at := max(c.now, 1)
	if m.checked > 0 {
		at = max(at, m.checked+checkEvery)
	}
	m.checked = at
	m.pings, m.until = 0, at+c.verifyFor(m)
	c.pingLater(m, at)
	c.setPhase(m, phaseVerify)
}

// verifyFor is how long a reported death is checked: long enough that a host
// which stood still for a moment is not hidden, and short enough that a crash
// is noticed in time. The membership waits longer in larger meshes, so this
// waits less; unless the node was thought dead just before: what the membership
// says of a host that comes and goes is of the last time.
func (c *Core) verifyFor(m *member) time.Duration {
	if m.spared > 0 && c.now-m.spared < sparedFor {
		return max(c.cfg.VerifyFor, c.cfg.Silence)
	}
	decades := math.Log10(float64(max(c.crowd()+1, 10)))
	return max(c.cfg.VerifyFor, c.cfg.Silence-time.Duration(decades*float64(c.cfg.Suspicion)))
}

// excuse gives a check more time when this node itself stood still: a ping that
// leaves late says nothing of the node that did not answer it.
func (c *Core) excuse(m *member) {
	if m.phase == phaseVerify && c.now-m.pingAt > stalled {
		m.until = min(max(m.until, c.now+c.cfg.VerifyFor), m.since+c.verifyFor(m)+maxExcuse)
	}
}

// pingEvery spaces the pings of a check; slower once the node is hidden.
func (c *Core) pingEvery(m *member) time.Duration {
	switch {
	case (m.phase == phaseVerify || m.rival.known()) && m.pings < 8:
		return c.cfg.VerifyFor / 7
	case m.phase == phaseVerify:
		return c.cfg.VerifyFor / 3
	case m.pings < 16:
		return 250 * time.Millisecond
	}
	return 2 * time.Second
}

// checkMembers sends the pings that are due and judges those whose time is up.
func (c *Core) checkMembers() {
	for _, id := range c.checking() {
		m := c.members[id]
		if c.now < m.pingAt {
			continue
		}
		c.excuse(m)
		if m.phase == phaseVerify && c.now >= m.until {
			c.condemn(m)
		}
		c.settlePlace(m)
		if m.phase == phaseAlive && m.pings >= maxDoubt && !m.rival.known() {
			c.sign(m, signDoubted)
			continue
		}
		if m.pings++; m.pings > maxPings && m.phase != phaseVerify && m.phase != phaseShaky {
			c.pingLater(m, 0)
			continue
		}
		next := c.now + c.pingEvery(m)
		if m.phase == phaseVerify {
			next = min(next, m.until)
		}
		c.pingLater(m, next)
		c.ping(m)
	}
}

// checking returns the members being pinged, sorted.
func (c *Core) checking() []state.NodeID {
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

func (c *Core) nextCheck() time.Duration {
	next := c.strayAt
	if len(c.members) == 0 {
		next = time.Duration(1<<63 - 1)
	}
	for _, m := range c.pinging {
		next = min(next, m.pingAt)
	}
	for _, p := range c.partings {
		next = min(next, p.next)
	}
	return next
}
