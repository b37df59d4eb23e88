package gossip

import (
	"fmt"
	"time"
)

// endCheck ends a check without an answer: the node is hidden, unless so many
// vanished at once that it is rather us (S12).
func (c *Core) endCheck(m *member) {
	switch {
	case m.listed && !m.proven && c.hearing():
		c.observe(m, signUnproven)
		return
	case m.listed:
		c.observe(m, signSilent)
		return
	}
	g := &c.preserve
	if m.proven { // who was gone before we came, or never was, tells nothing of our links
		g.record(vanished{m.host(), c.now})
	}
	g.forget(c.now - c.cfg.PreserveWindow)
	gone, others := g.hosts(), c.countHosts()
	if m.seen && others >= c.cfg.MinMesh && float64(gone) > c.cfg.Preserve*float64(others) {
		c.setPreserve(true, fmt.Sprintf("%d of %d members vanished within %v: serving their last known endpoints", gone,
			others, c.cfg.PreserveWindow))
		for _, o := range c.ordered {
			if o.seen && o.phase == phaseDead && c.now-o.since <= c.cfg.PreserveWindow {
				c.observe(o, signCutOff)
			}
		}
		c.observe(m, signCutOff)
		return
	}
	c.observe(m, signSilent)
}

// provenCount is how many of the members showed that they are there, at least one:
// what depends on the size of the mesh depends on that, not on what is said.
func (c *Core) provenCount() int {
	n := 0
	for _, m := range c.ordered {
		if m.proven {
			n++
		}
	}
	return max(n, 1)
}

// sweepMembers ages the dead (S9), and ends self-preservation.
func (c *Core) sweepMembers() {
	kept, recent := 0, 0 // kept are of those who count
	c.countNewcomers()
	var expired []*member
	for _, m := range c.ordered {
		age := c.now - m.since
		if m.listed || m.seen && age < deadMemory {
			recent++
		}
		c.resolveAddr(m)
		switch m.phase {
		case phaseAlive, phaseRelayed:
			c.checkUnlisted(m, age)
			if m.phase == phaseAlive {
				c.checkIfUnanswered(m)
			}
		case phaseKept:
			if m.proven {
				kept++
			}
			if age > c.cfg.StopOfferingAfter || !m.proven && !c.preserve.on {
				c.observe(m, signExpired)
			}
		case phaseDead, phaseLeft, phaseAbsent:
			if c.retireStreams(m, age) {
				expired = append(expired, m)
			}
		}
	}
	c.recent = recent
	for _, m := range expired {
		c.forgetMember(m)
	}
	if kept == 0 {
		c.setPreserve(false, "")
	}
}

// checkUnlisted looks after a live member that the membership does not list,
// and of whose death it will not tell: when silent it is pinged, and only when
// that is not answered it is in doubt.
func (c *Core) checkUnlisted(m *member, age time.Duration) {
	silent := c.now - m.heardAt
	switch {
	case m.listed || age <= unlistedFor:
	case silent > 2*unlistedFor:
		c.observe(m, signUnanswered)
	case silent > unlistedFor:
		c.sendPing(m)
		fallthrough
	default:
		c.requestRejoin(m) // one that speaks, too: its tables are no proof that it is listed
	}
}

// unlistedFor is how long a member that only we know of may be silent before
// it is checked.
const unlistedFor = 2 * time.Second

// retireStreams puts the streams of a member away that has been gone for long, and reports
// whether it is to be forgotten.
func (c *Core) retireStreams(m *member, age time.Duration) (expired bool) {
	if age > c.cfg.StopOfferingAfter && m.retired < 1 {
		m.offered, m.retired = false, 1
		for _, t := range c.store.Tables() {
			t.SetOffered(m.id, false)
		}
	}
	if age > c.cfg.DropAfter && m.retired < 2 {
		m.retired = 2
		for _, t := range c.store.Tables() {
			t.Bury(m.id)
		}
	}
	return age > c.cfg.DropAfter+c.cfg.Graves
}
