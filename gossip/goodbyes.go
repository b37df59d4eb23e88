package gossip

import (
	"slices"
	"strings"
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

	checks map[state.NodeID]*goodbyeCheck // at most maxGoodbyeChecks
	due    agenda[*goodbyeCheck]          // all of checks, by when the question is repeated
}

// memberObserver is who hears what goodbyes finds out about members.
type memberObserver interface {
	observe(m *member, s sign)
	markReached(m *member)
}

// goodbyeCheck is a goodbye that has not taken effect yet. Streams are not signed, and
// most nodes hear of a goodbye from others, so the owner is asked. One that leaves
// confirms it, for as long as its goodbye takes to spread; one that stays denies it
// and goes on to be served. If it does neither, the goodbye is believed as soon as a
// report of its death would be (S9).
type goodbyeCheck struct {
	id    state.NodeID  // who is asked
	place int           // in goodbyes.due
	nonce uint64        // of the question
	next  time.Duration // when the question is repeated
	until time.Duration // when the member counts as gone without an answer
}

// dueAt and slot make a check one of the appointments of goodbyes.
func (p *goodbyeCheck) dueAt() time.Duration { return p.next }
func (p *goodbyeCheck) slot() *int           { return &p.place }

// maxGoodbyeChecks bounds the members that are asked about their goodbye at once;
// maxNamedChecks bounds those of them that never showed that they exist. For the
// others the membership reports, a moment later, that they are gone.
const maxGoodbyeChecks = 1024

// ask starts to ask a member whether it leaves: once a second at most, however
// many nodes say so.
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
	if m.goodbyeAsked > 0 {
		at = max(at, m.goodbyeAsked+checkInterval)
	}
	m.goodbyeAsked = at
	p := &goodbyeCheck{id: m.id, nonce: g.newNonce(), next: at, until: at + g.cfg.VerifyFor}
	g.checks[m.id] = p
	g.due.put(p)
	if g.now >= p.next {
		g.sendQuestion(m, p)
	}
}

// run repeats the questions that are due, and accepts the goodbyes that were not
// answered in time.
func (g *goodbyes) run() {
	ps := g.due.due(g.now)
	slices.SortFunc(ps, func(a, b *goodbyeCheck) int { return strings.Compare(string(a.id), string(b.id)) })
	for _, p := range ps {
		m := g.roster.members[p.id]
		switch {
		case g.checks[p.id] != p: // the end of another one ended it
		case m == nil:
			g.forget(p.id)
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
	g.due.put(p)
	e := g.newPacket()
	e.ping(framePing, pingFrame{nonce: p.nonce, target: m.id, goodbye: goodbyeAsked})
	g.outbox.sendUnmetered(m.id, e)
}

// ownerWrote looks at a stream of the global scope that has changed. An owner
// that writes after its goodbye has come back, and its former life is not asked
// about any more. If it counts as gone it is checked, since its packets are taken
// for the tail of that goodbye. was is the head that this node held before.
func (g *goodbyes) ownerWrote(owner state.NodeID, was state.Head) {
	m := g.roster.members[owner]
	if h, _ := g.store.Global().Head(owner); m == nil || h.Sum == 0 {
		return
	}
	g.forget(owner)
	if m.phase == phaseLeft && was.Inc > 0 && was.Sum == 0 && g.pings.pinging.len() < maxNamedChecks {
		g.members.observe(m, signNamed)
	}
}

// accept makes a goodbye take effect. The question ends with it: asked again, it
// might reach the member's next life, whose silence would count as an answer.
func (g *goodbyes) accept(m *member) {
	g.forget(m.id)
	g.roster.setListed(m, false)
	g.members.observe(m, signGoodbyeConfirmed)
}

// ownAnswer is this node's answer to whether it leaves.
func (g *goodbyes) ownAnswer() goodbye {
	if g.left() {
		return goodbyeConfirmed
	}
	return goodbyeDenied
}

// onAnswer reports whether a ping's answer is that of a member about its goodbye,
// and acts on it.
func (g *goodbyes) onAnswer(m *member, f pingFrame) bool {
	p := g.checks[m.id]
	if p == nil || f.nonce != p.nonce {
		return false
	}
	switch f.goodbye {
	case goodbyeConfirmed:
		g.accept(m)
	case goodbyeDenied:
		g.forget(m.id)
		g.Stats.FalseGoodbyes++
		g.members.markReached(m)
	}
	return true
}

// forget stops asking a member.
func (g *goodbyes) forget(id state.NodeID) {
	if p := g.checks[id]; p != nil {
		g.due.remove(p)
		delete(g.checks, id)
	}
}
