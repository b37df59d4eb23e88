package gossip

import (
	"slices"
	"time"

	"meshd/state"
)

// This file owns the schedule of pings: which member is pinged when, and in what
// order the dead and the newcomers get theirs. It sends pings; what an answer
// means is for checks and liveness.

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

// schedule makes a member be pinged at a moment; 0: not at all.
func (p *pings) schedule(m *member, at time.Duration) {
	if m.pingAt = at; at > 0 {
		p.pinging[m.id] = m
	} else {
		delete(p.pinging, m.id)
	}
}

// start pings a member that is not pinged already, until it answers or others
// are asked (maxDoubt).
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

// pingHidden makes a hidden member be pinged a few times, if it is not already.
func (p *pings) pingHidden(m *member) {
	if m.pingAt == 0 {
		m.pingCount = maxPings - 16
		p.schedule(m, max(p.now, 1))
	}
}

// maxPings ends the pinging of a node that does not answer; pingStray goes on.
const maxPings = 32

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

// send asks a member whether it is there, and in the first rounds of a check
// three others to ask it. Only an answer with the nonce of the question counts:
// whoever gives it got the question, so it is where we asked.
func (p *pings) send(m *member) {
	e := p.newPacket()
	e.ping(framePing, pingFrame{nonce: m.nonce, target: m.id})
	p.outbox.send(m.id, e)
	if m.candidate.known() {
		e := p.newPacket()
		e.ping(framePing, pingFrame{nonce: m.candidate.nonce, target: m.id})
		p.outbox.sendTo(m.id, m.candidate.addr, e)
	}
	if m.phase != phaseVerify || m.pingCount > 3 {
		return
	}
	if m.relayNonce == 0 {
		m.relayNonce = p.newNonce()
	}
	p.relayBudget.refill(askRate, p.now)
	if p.relayBudget.empty(askRate) {
		return
	}
	for _, to := range p.roster.pick(p.roster.living(""), 3, m.id) {
		p.relayBudget.take(0)
		e := p.newPacket()
		e.ping(frameAsk, pingFrame{nonce: m.relayNonce, target: m.id, addr: m.addr})
		p.outbox.send(to, e)
	}
}

// askRate bounds how often others are asked for members in doubt, whoever made
// so many doubtful; what is over it is left to the pings from here.
var askRate = rate{bytes: 1 << 20, packets: 1 << 10, seconds: 4}

// The membership lists whoever is named to it, and takes one round of its probes,
// which grows with their number, to find out that some never were. So a member of
// which there is nothing but the list is pinged soon (G17): a host answers in a
// moment, and stays what it was meanwhile. What does not answer, neither here nor
// through others, is as good as dead until it does.
const (
	newcomerDelay     = time.Second // for it to speak by itself
	maxNewcomerChecks = 128         // of newcomers under way up to which one more begins, once a second
)

// needsProof reports whether a listed member is to be pinged since it has not
// shown that it exists. A node that hears nobody cannot tell.
func (p *pings) needsProof(m *member) bool {
	return m.newcomer() && p.cfg.Probing > 0 && p.roster.hearing() && p.now-m.since > newcomerDelay &&
		p.newcomers < maxNewcomerChecks
}

// countNewcomers counts the newcomers that are pinged and not yet judged. Checks
// of others, of a hundred dead hosts say, leave them their room; and so do those
// who were taken for absent, which are pinged on.
func (p *pings) countNewcomers() {
	p.newcomers = 0
	for _, m := range p.pinging {
		if m.newcomer() && m.phase != phaseAbsent {
			p.newcomers++
		}
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

// nthDead returns the nth of them, by name; there must be so many.
func (p *pings) nthDead(n int) *member {
	for _, m := range p.roster.ordered {
		if m.retryable() {
			if n--; n < 0 {
				return m
			}
		}
	}
	return nil
}

const deafPings = 3 // in a second

// pingWhenDeaf pings some of those who showed that they are there, by datagrams,
// before a node takes itself for deaf. The membership's own probes do so in a small
// mesh; where hundreds of names are listed that somebody made up, they seldom go to
// a host.
func (p *pings) pingWhenDeaf() {
	if p.cfg.Probing == 0 || p.now-p.roster.lastHeard < deafAfter/2 {
		return
	}
	for _, id := range p.roster.pick(p.roster.provenOf(p.roster.living("")), deafPings) {
		m := p.roster.members[id]
		e := p.newPacket()
		e.ping(framePing, pingFrame{nonce: m.nonce, target: id})
		p.outbox.sendTo(id, m.addr, e)
	}
}
