package gossip

import (
	"maps"
	"slices"
	"time"

	"meshd/state"
)

// goodbyeCheck is a goodbye that has not taken effect yet. Streams are not signed, and
// most nodes hear of a goodbye from others: so the owner is asked. One that leaves
// says so, for as long as its goodbye takes to spread; one that stays says that,
// and goes on to be served; of one that says neither the goodbye is believed, as
// soon as a report of its death would be (S9).
type goodbyeCheck struct {
	nonce uint64        // of the question
	next  time.Duration // when it is asked again
	until time.Duration // when it counts as gone without an answer
}

// maxGoodbyeChecks bounds the members that are asked about their goodbye at once, and
// maxNamedChecks those of them that never showed that they exist. Of the others the
// membership tells, a moment later, that they are gone.
const maxGoodbyeChecks = 1024

// askGoodbye starts to ask a member whether it leaves, once a second at most,
// however many say so.
func (c *Core) askGoodbye(m *member) {
	if c.goodbyeChecks[m.id] != nil {
		return
	}
	if !m.known() {
		c.acceptGoodbye(m)
		return
	}
	most := maxGoodbyeChecks
	if !m.proven {
		most = maxNamedChecks
	}
	if len(c.goodbyeChecks) >= most {
		c.Stats.GoodbyesDropped++
		return
	}
	at := max(c.now, 1)
	if m.goodbyeAskedAt > 0 {
		at = max(at, m.goodbyeAskedAt+checkInterval)
	}
	m.goodbyeAskedAt = at
	p := &goodbyeCheck{nonce: c.newNonce(), next: at, until: at + c.cfg.VerifyFor}
	c.goodbyeChecks[m.id] = p
	if c.now >= p.next {
		c.sendGoodbyeQuestion(m, p)
	}
}

// runGoodbyeChecks asks whom it is time to ask, and ends what was not answered.
func (c *Core) runGoodbyeChecks() {
	if len(c.goodbyeChecks) == 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(c.goodbyeChecks)) {
		m, p := c.members[id], c.goodbyeChecks[id]
		switch {
		case m == nil:
			delete(c.goodbyeChecks, id)
		case c.now < p.next:
		case c.now >= p.until:
			c.acceptGoodbye(m)
		default:
			c.sendGoodbyeQuestion(m, p)
		}
	}
}

// sendGoodbyeQuestion asks one member.
func (c *Core) sendGoodbyeQuestion(m *member, p *goodbyeCheck) {
	p.next = min(c.now+c.cfg.VerifyFor/7, p.until)
	e := c.newPacket()
	e.ping(framePing, pingFrame{nonce: p.nonce, target: m.id, goodbye: goodbyeAsked})
	c.sendUnmetered(m.id, e)
}

// ownerWrote looks at a stream of the global scope that has changed: whoever writes
// after its goodbye has come back, and its former life is asked for no more. One
// that counts as gone is looked for, where its packets are taken for the tail of
// that goodbye. was is what was held of the stream before.
func (c *Core) ownerWrote(owner state.NodeID, was state.Head) {
	m := c.members[owner]
	if h, _ := c.store.Global().Head(owner); m == nil || h.Sum == 0 {
		return
	}
	delete(c.goodbyeChecks, owner)
	if m.phase == phaseLeft && was.Inc > 0 && was.Sum == 0 && len(c.pinging) < maxNamedChecks {
		c.observe(m, signNamed)
	}
}

// acceptGoodbye makes a goodbye take effect. It is not asked about any more: who asks
// on may ask the next life, and take its silence for an answer.
func (c *Core) acceptGoodbye(m *member) {
	delete(c.goodbyeChecks, m.id)
	c.setListed(m, false)
	c.observe(m, signGoodbyeConfirmed)
}

// goodbyeAnswer is the answer to whether this node leaves.
func (c *Core) goodbyeAnswer() goodbye {
	if c.leftAt > 0 {
		return goodbyeConfirmed
	}
	return goodbyeDenied
}

// onGoodbyeAnswer reports whether an answer is one of a member that was asked
// whether it leaves, and does what follows from it.
func (c *Core) onGoodbyeAnswer(m *member, f pingFrame) bool {
	p := c.goodbyeChecks[m.id]
	if p == nil || f.nonce != p.nonce {
		return false
	}
	switch f.goodbye {
	case goodbyeConfirmed:
		c.acceptGoodbye(m)
	case goodbyeDenied:
		delete(c.goodbyeChecks, m.id)
		c.Stats.FalseGoodbyes++
		c.markReached(m)
	}
	return true
}
