package gossip

import (
	"maps"
	"slices"
	"time"

	"meshd/state"
)

// parting is a goodbye that has not taken effect yet. Streams are not signed, and
// most nodes hear of a goodbye from others: so the owner is asked. One that leaves
// says so, for as long as its goodbye takes to spread; one that stays says that,
// and goes on to be served; of one that says neither the goodbye is believed, as
// soon as a report of its death would be (S9).
type parting struct {
	nonce uint64        // of the question
	next  time.Duration // when it is asked again
	until time.Duration // when it counts as gone without an answer
}

// maxPartings bounds the members that are asked about their goodbye at once, and
// maxNamedChecks those of them that never showed that they exist. Of the others the
// membership tells, a moment later, that they are gone.
const maxPartings = 1024

// askGoodbye starts to ask a member whether it leaves, once a second at most,
// however many say so.
func (c *Core) askGoodbye(m *member) {
	if c.partings[m.id] != nil {
		return
	}
	if !m.known() {
		c.takeLeave(m)
		return
	}
	most := maxPartings
	if !m.proven {
		most = maxNamedChecks
	}
	if len(c.partings) >= most {
		c.Stats.GoodbyesDropped++
		return
	}
	at := max(c.now, 1)
	if m.parted > 0 {
		at = max(at, m.parted+checkEvery)
	}
	m.parted = at
	p := &parting{nonce: c.nonce(), next: at, until: at + c.cfg.VerifyFor}
	c.partings[m.id] = p
	if c.now >= p.next {
		c.askAgain(m, p)
	}
}

// askGoodbyes asks whom it is time to ask, and ends what was not answered.
func (c *Core) askGoodbyes() {
	if len(c.partings) == 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(c.partings)) {
		m, p := c.members[id], c.partings[id]
		switch {
		case m == nil:
			delete(c.partings, id)
		case c.now < p.next:
		case c.now >= p.until:
			c.takeLeave(m)
		default:
			c.askAgain(m, p)
		}
	}
}

// askAgain asks one member.
func (c *Core) askAgain(m *member, p *parting) {
	p.next = min(c.now+c.cfg.VerifyFor/7, p.until)
	e := c.packet()
	e.ping(framePing, pingFrame{nonce: p.nonce, target: m.id, goodbye: goodbyeAsked})
	c.post(m.id, e)
}

// goesOn looks at a stream of the global scope that has changed: whoever writes
// after its goodbye has come back, and its former life is asked for no more. One
// that counts as gone is looked for, where its packets are taken for the tail of
// that goodbye. was is what was held of the stream before.
func (c *Core) goesOn(owner state.NodeID, was state.Head) {
	m := c.members[owner]
	if h, _ := c.store.Global().Head(owner); m == nil || h.Sum == 0 {
		return
	}
	delete(c.partings, owner)
	if m.phase == phaseLeft && was.Inc > 0 && was.Sum == 0 && len(c.pinging) < maxNamedChecks {
		c.sign(m, signNamed)
	}
}

// takeLeave makes a goodbye take effect. It is not asked about any more: who asks
// on may ask the next life, and take its silence for an answer.
func (c *Core) takeLeave(m *member) {
	delete(c.partings, m.id)
	c.list(m, false)
	c.sign(m, signLeft)
}

// ownGoodbye is the answer to whether this node leaves.
func (c *Core) ownGoodbye() goodbye {
	if c.leftAt > 0 {
		return goodbyeMeant
	}
	return goodbyeDenied
}

// answeredGoodbye reports whether an answer is one of a member that was asked
// whether it leaves, and does what follows from it.
func (c *Core) answeredGoodbye(m *member, f pingFrame) bool {
	p := c.partings[m.id]
	if p == nil || f.nonce != p.nonce {
		return false
	}
	switch f.goodbye {
	case goodbyeMeant:
		c.takeLeave(m)
	case goodbyeDenied:
		delete(c.partings, m.id)
		c.Stats.FalseGoodbyes++
		c.reached(m)
	}
	return true
}
