package gossip

import (
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// This file owns the schedule of pings: which member is pinged when, and in what
// order the dead and the newcomers get theirs. It sends pings; what an answer
// means is for checks and liveness.

// pings is the schedule of pings.
//
// Invariant: pinging holds the members with a pingAt, by it.
type pings struct {
	*env
	roster *roster // who is a member
	outbox *outbox // where pings go

	pinging       agenda[*member] // those with a pingAt
	newcomers     int             // how many newcomers are being pinged, see needsProof
	pingDeadAt    time.Duration   // when one of the dead is pinged again
	noBurstBefore time.Duration   // pingVanishedAround rests until then
	relayBudget   bucket          // pings that others may still be asked for
	lookBudget    bucket          // looks at suspects that others pinged
}

// schedule sets when a member is pinged next; 0: not at all.
func (p *pings) schedule(m *member, at time.Duration) {
	m.lookAgainAt = 0
	if m.pingAt = at; at > 0 {
		p.pinging.put(m)
	} else {
		p.pinging.remove(m)
	}
	p.roster.update(m)
}

// lookAgain has a report looked at again, in place of a ping.
func (p *pings) lookAgain(m *member, at time.Duration) {
	p.schedule(m, at)
	m.lookAgainAt = at
}

// start pings a member that is not being pinged, until it answers or
// maxUnanswered pings were lost.
func (p *pings) start(m *member) {
	if m.pingAt > 0 || p.cfg.Probing == 0 {
		return
	}
	m.pingCount = 0
	p.schedule(m, max(p.now, 1))
	if m.newcomer() {
		p.newcomers++
	}
}

// pingHidden pings a hidden member a few times, if it is not being pinged.
func (p *pings) pingHidden(m *member) {
	if m.pingAt == 0 {
		m.pingCount = maxPings - 16
		p.schedule(m, max(p.now, 1))
	}
}

// maxPings ends the pings to a member that does not answer; pingOneDead goes on.
const maxPings = 32

// due returns the members whose pings are due, sorted.
func (p *pings) due() []*member {
	ms := p.pinging.due(p.now)
	slices.SortFunc(ms, func(a, b *member) int { return strings.Compare(string(a.id), string(b.id)) })
	return ms
}

// next returns when the next ping is due.
func (p *pings) next() time.Duration {
	next := p.pingDeadAt
	if len(p.roster.members) == 0 {
		next = never
	}
	return min(next, p.pinging.next())
}

// interval is the time between two pings of a member: short while it is checked,
// long once it is hidden.
func (p *pings) interval(m *member) time.Duration {
	switch {
	case (m.phase == phaseVerify || m.candidate.known()) && m.pingCount < 8:
		return p.cfg.VerifyFor / 7
	case m.phase == phaseVerify:
		return p.cfg.VerifyFor / 3
	case m.pingCount < 16 && !p.roster.sharesChecks(), m.pingCount < 12:
		return 250 * time.Millisecond
	}
	return 2 * time.Second
}

// send asks a member whether it is there, and in the first rounds of a check asks
// three other nodes to ping it too. Only an answer with the nonce of the question
// counts: a node that has the nonce got the question, so it is at the address
// that was asked.
//
// Every other ping to a member that was hidden goes through another node, where checks
// are shared: once it is back, that has it give all nodes a sign of life.
func (p *pings) send(m *member) {
	if m.phase == phaseDead && m.pingCount%2 == 0 && p.roster.sharesChecks() {
		p.sendThrough(m, 1)
		return
	}
	p.sendDirect(m)
	if m.candidate.known() {
		e := p.newPacket()
		e.ping(framePing, pingFrame{nonce: m.candidate.nonce, target: m.id})
		p.outbox.sendTo(m.id, m.candidate.addr, e)
	}
	if m.phase == phaseVerify && (m.pingCount < 3 || m.pingCount == 3 && !p.roster.sharesChecks()) {
		p.sendThrough(m, 3)
	}
}

// sendDirect pings a member from here.
func (p *pings) sendDirect(m *member) {
	e := p.newPacket()
	e.ping(framePing, pingFrame{nonce: m.nonce, target: m.id})
	p.outbox.send(m.id, e)
}

// sendThrough asks some other nodes to ping a member.
func (p *pings) sendThrough(m *member, others int) {
	if m.relayNonce == 0 {
		m.relayNonce = p.newNonce()
	}
	p.relayBudget.refill(askRate, p.now)
	if p.relayBudget.empty(askRate) {
		return
	}
	for _, to := range p.roster.pick(p.roster.living(""), others, m.id) {
		p.relayBudget.take(0)
		e := p.newPacket()
		e.ping(frameAsk, pingFrame{nonce: m.relayNonce, target: m.id, addr: m.addr})
		p.outbox.send(to, e)
	}
}

// look pings a suspect that others ping, before this node believes that it is dead:
// first through another, since that has the suspect give all nodes a sign of life,
// then directly. Both times it also asks some nodes for changes of the suspect that it
// may have missed. It returns when the check goes on.
func (p *pings) look(m *member) time.Duration {
	if m.pingCount == 0 {
		p.lookBudget.refill(askRate, p.now)
		if p.lookBudget.empty(askRate) {
			p.Stats.LooksPutOff++
			m.checkUntil += p.cfg.VerifyFor / 2
			return p.now + p.cfg.VerifyFor/2
		}
		p.lookBudget.take(0)
	}
	m.pingCount++
	switch m.pingCount {
	case 1:
		p.sendThrough(m, 1)
		p.askForChanges(m)
		return min(p.now+p.cfg.VerifyFor/4, m.checkUntil)
	case 2:
		p.sendDirect(m)
		p.askForChanges(m)
	}
	return m.checkUntil
}

// askForChanges asks some nodes for changes that a suspect made. Who has none does not
// answer.
func (p *pings) askForChanges(m *member) {
	w := p.store.Global().WantNext(m.id)
	for _, to := range p.roster.pick(p.roster.living(""), 3, m.id) {
		e := p.newPacket()
		e.wants("", []state.Want{w})
		p.outbox.send(to, e)
	}
}

// askRate bounds how often other nodes are asked to ping members in doubt,
// however many there are. What is over it is left to this node's own pings.
var askRate = rate{bytes: 1 << 20, packets: 1 << 10, seconds: 4}

// The membership lists every node that is named to it, and takes one round of its
// probes, which grows with their number, to find out that some never existed. So
// a member of which there is nothing but the list is pinged soon (G17). A host
// answers in a moment, and is served meanwhile. A member that answers neither
// here nor through others is treated as dead until it does.
const (
	newcomerDelay     = time.Second // in which it may speak by itself
	maxNewcomerChecks = 128         // no further newcomer is pinged above that many
)

// needsProof reports whether a listed member is to be pinged because it has not
// shown that it exists. A node to which no datagram comes cannot tell.
func (p *pings) needsProof(m *member) bool {
	return m.newcomer() && p.cfg.Probing > 0 && p.roster.hearing() && p.now-m.since > newcomerDelay &&
		p.newcomers < maxNewcomerChecks
}

// countNewcomers counts the newcomers that are being pinged. Checks of other
// members, of a hundred dead hosts say, leave the newcomers their room, and so do
// those that were found absent, which are pinged on.
func (p *pings) countNewcomers() {
	p.newcomers = 0
	for _, m := range p.pinging.heap {
		if m.newcomer() && m.phase != phaseAbsent {
			p.newcomers++
		}
	}
}

// pingVanishedAround pings the members that vanished at about the same time as
// one that is back: a cut that heals brings back all of them (G2).
func (p *pings) pingVanishedAround(since time.Duration) {
	if p.now < p.noBurstBefore {
		return
	}
	p.noBurstBefore = p.now + 5*time.Second
	for _, m := range p.roster.retryable.all() {
		if (m.phase == phaseDead || m.phase == phaseKept) && (m.since-since).Abs() < time.Minute {
			m.pingCount = maxPings - 4
			p.schedule(m, p.now+1+time.Duration(p.rng.Int64N(int64(300*time.Millisecond))))
		}
	}
}

// pingOneDead pings one random dead member now and then, for ever: the membership
// forgets the dead, and nothing else would notice that a partition has healed
// (G2). All nodes together send each of the dead a few pings per second.
func (p *pings) pingOneDead() {
	if p.now < p.pingDeadAt {
		return
	}
	dead := p.roster.retryable.Len()
	every := time.Second
	if dead > 0 {
		if p.pingDeadAt > 0 {
			p.send(p.roster.retryable.nth(p.rng.IntN(dead)))
		}
		every = max(every, time.Duration(p.roster.membershipSize()+dead)*time.Second/time.Duration(5*dead))
	}
	p.pingDeadAt = p.now + p.jitter(min(every, time.Minute))
}

// deafPings is how many members pingWhenDeaf pings per second.
const deafPings = 3

// pingWhenDeaf pings some proven members by datagrams before this node takes
// itself for deaf. In a small mesh the membership's own probes bring answers;
// where hundreds of invented names are listed, they seldom go to a host.
func (p *pings) pingWhenDeaf() {
	if p.cfg.Probing == 0 || p.now-p.roster.lastHeard < deafAfter/2 {
		return
	}
	for _, id := range p.roster.pick(p.roster.livingProven(""), deafPings) {
		m := p.roster.members[id]
		e := p.newPacket()
		e.ping(framePing, pingFrame{nonce: m.nonce, target: id})
		p.outbox.sendTo(id, m.addr, e)
	}
}
