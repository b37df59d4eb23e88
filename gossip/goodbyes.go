package gossip

import (
	"maps"
	"slices"
	"time"

	"meshd/state"
)

// A goodbye, the last and empty snapshot of a node's stream, takes effect only
// when the node itself confirms it (S9). This file owns the goodbyes that are
// being asked about.

// goodbyes asks members whether they leave.
type goodbyes struct {
	*env
	roster  *roster
	outbox  *outbox
	pings   *pings
	members memberObserver

	checks map[state.NodeID]*goodbyeCheck
}

// memberObserver is what goodbyes says of members.
type memberObserver interface {
	observe(m *member, s sign)
	markReached(m *member)
}

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

// ask starts to ask a member whether it leaves, once a second at most,
// however many say so.
func (g *goodbyes) ask(m *member) {
	if g.checks[m.id] != nil {
		return
	}
	if !m.known() {
		g.accept(m)
		return
	}
	most := maxGoodbyeChecks
	if !m.proven {
		most = maxNamedChecks
	}
	if len(g.checks) >= most {
		g.Stats.GoodbyesDropped++
		return
	}
	at := max(g.now, 1)
	if m.goodbyeAskedAt > 0 {
		at = max(at, m.goodbyeAskedAt+checkInterval)
	}
	m.goodbyeAskedAt = at
	p := &goodbyeCheck{nonce: g.newNonce(), next: at, until: at + g.cfg.VerifyFor}
	g.checks[m.id] = p
	if g.now >= p.next {
		g.sendQuestion(m, p)
	}
}

// run asks whom it is time to ask, and ends what was not answered.
func (g *goodbyes) run() {
	if len(g.checks) == 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(g.checks)) {
		m, p := g.roster.members[id], g.checks[id]
		switch {
		case m == nil:
			delete(g.checks, id)
		case g.now < p.next:
		case g.now >= p.until:
			g.accept(m)
		default:
			g.sendQuestion(m, p)
		}
	}
}

// sendQuestion asks one member.
func (g *goodbyes) sendQuestion(m *member, p *goodbyeCheck) {
	p.next = min(g.now+g.cfg.VerifyFor/7, p.until)
	e := g.newPacket()
	e.ping(framePing, pingFrame{nonce: p.nonce, target: m.id, goodbye: goodbyeAsked})
	g.outbox.sendUnmetered(m.id, e)
}

// ownerWrote looks at a stream of the global scope that has changed: whoever writes
// after its goodbye has come back, and its former life is asked for no more. One
// that counts as gone is looked for, where its packets are taken for the tail of
// that goodbye. was is what was held of the stream before.
func (g *goodbyes) ownerWrote(owner state.NodeID, was state.Head) {
	m := g.roster.members[owner]
	if h, _ := g.store.Global().Head(owner); m == nil || h.Sum == 0 {
		return
	}
	delete(g.checks, owner)
	if m.phase == phaseLeft && was.Inc > 0 && was.Sum == 0 && len(g.pings.pinging) < maxNamedChecks {
		g.members.observe(m, signNamed)
	}
}

// accept makes a goodbye take effect. It is not asked about any more: who asks
// on may ask the next life, and take its silence for an answer.
func (g *goodbyes) accept(m *member) {
	delete(g.checks, m.id)
	g.roster.setListed(m, false)
	g.members.observe(m, signGoodbyeConfirmed)
}

// ownAnswer is the answer to whether this node leaves.
func (g *goodbyes) ownAnswer() goodbye {
	if g.left() {
		return goodbyeConfirmed
	}
	return goodbyeDenied
}

// onAnswer reports whether an answer is one of a member that was asked
// whether it leaves, and does what follows from it.
func (g *goodbyes) onAnswer(m *member, f pingFrame) bool {
	p := g.checks[m.id]
	if p == nil || f.nonce != p.nonce {
		return false
	}
	switch f.goodbye {
	case goodbyeConfirmed:
		g.accept(m)
	case goodbyeDenied:
		delete(g.checks, m.id)
		g.Stats.FalseGoodbyes++
		g.members.markReached(m)
	}
	return true
}

// forget stops asking a member.
func (g *goodbyes) forget(id state.NodeID) { delete(g.checks, id) }
