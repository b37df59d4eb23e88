package gossip

import (
	"net/netip"

	"meshd/state"
)

// The four frames of a check (ping, ack, ask, heard), and the step that sends the
// pings that are due. Answers become signs of liveness.

// checks handles the frames of checks, and the answers to joins.
type checks struct {
	*env
	roster   *roster
	outbox   *outbox
	pings    *pings
	goodbyes *goodbyes
	liveness *liveness

	refutation *refutation // hears of pings for others

	joinPings map[netip.AddrPort]joinPing // questions that wait for an answer, at most maxJoinPings
}

// run sends the pings that are due, and ends the checks whose time is up.
func (k *checks) run() {
	for _, m := range k.pings.due() {
		if m.pingAt == 0 || k.now < m.pingAt { // another one's check changed it
			continue
		}
		if m.lookAgainAt > 0 {
			k.lookAgain(m)
			continue
		}
		k.liveness.extendCheck(m)
		if m.phase == phaseVerify && k.now >= m.checkUntil {
			k.liveness.endCheck(m)
		}
		if m.waits && k.runWaiting(m) {
			continue
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

// lookAgain looks at a report again that was put off.
func (k *checks) lookAgain(m *member) {
	k.pings.schedule(m, 0)
	if !m.listed {
		k.liveness.observe(m, signUnlisted)
	}
}

// runWaiting does what is due about a suspect that others ping, and reports whether
// that is all. A node that has hidden one does not ping it on: those others do.
func (k *checks) runWaiting(m *member) bool {
	switch m.phase {
	case phaseVerify:
		k.pings.schedule(m, k.pings.look(m))
	case phaseDead, phaseKept:
		m.waits = false
		k.pings.schedule(m, 0)
	default:
		m.waits = false
		return false
	}
	return true
}

// onPing handles the four frames of a check.
func (k *checks) onPing(from state.NodeID, typ byte, p []byte) error {
	f, err := decodePing(p)
	if err != nil {
		return err
	}
	switch typ {
	case framePing: // the answer goes to the sender, whose target is kept
		if f.target != k.cfg.Self && f.goodbye == goodbyeUnasked && !f.addr.IsValid() {
			k.refutation.asked(f.target)
		}
		if f.goodbye == goodbyeAsked {
			f.goodbye = k.goodbyes.ownAnswer()
		}
		e := k.newPacket()
		e.ping(frameAck, f)
		k.answerPing(from, e)
	case frameAck:
		k.onAck(from, f)
	case frameAsk:
		k.onAsk(from, f)
	case frameHeard:
		k.onHeard(f)
	}
	return nil
}

// answerPing sends the answer to where the ping came from: two nodes that moved
// at once know only each other's former address. A ping that came as a datagram
// is answered by one; otherwise the peer could not tell that datagrams arrive.
func (k *checks) answerPing(from state.NodeID, e *encoder) {
	if k.usableAddr(k.packetFrom) {
		k.outbox.sendTo(from, k.packetFrom, e)
	} else {
		k.outbox.send(from, e)
	}
}

// onAck handles the answer to a ping. If the ping was sent for another node, the
// answer is passed on; if it was this node's own, it shows where its sender is.
func (k *checks) onAck(from state.NodeID, f pingFrame) {
	m := k.roster.members[from]
	switch {
	case f.target != "" && f.target != from:
		if m == nil || k.roster.members[f.target] == nil { // pinged for another node, which must be a member
			k.Stats.AsksDropped++
			return
		}
		e := k.newPacket()
		e.ping(frameHeard, pingFrame{nonce: f.nonce, target: from})
		k.outbox.send(f.target, e)
	case k.onJoinPingAnswer(from, f):
	case m == nil:
	case k.goodbyes.onAnswer(m, f):
	case m.candidate.known() && f.nonce == m.candidate.nonce:
		m.candidate.answeredAt = k.now
	case f.nonce == m.nonce:
		k.liveness.markReached(m)
	}
}

// onAsk pings a member for another node. It does so only at the address where
// this node knows the member, and only so often: otherwise any node could make
// the mesh send packets to anybody (G13).
func (k *checks) onAsk(from state.NodeID, f pingFrame) {
	m := k.roster.members[f.target]
	if m == nil || k.roster.members[from] == nil || !m.listed && !m.known() || !k.affordAsk(f.target) {
		k.Stats.AsksDropped++
		return
	}
	e := k.newPacket()
	e.ping(framePing, pingFrame{nonce: f.nonce, target: from})
	k.outbox.sendTo(m.id, m.addr, e)
}

// affordAsk takes one ping to a member from what others may ask for.
func (k *checks) affordAsk(target state.NodeID) bool {
	b := &k.outbox.budgetOf(target).asked
	b.refill(askedRate, k.now)
	if b.empty(askedRate) {
		return false
	}
	b.take(0)
	return true
}

// onHeard handles the word of another node that it reached a member. It counts
// only if this node asked for it, and keeps the member served, after the others.
func (k *checks) onHeard(f pingFrame) {
	m := k.roster.members[f.target]
	if m == nil || m.relayNonce == 0 || f.nonce != m.relayNonce || k.now-m.since > maxExtension {
		return
	}
	m.relayNonce = 0
	k.liveness.observe(m, signRelayed)
	k.liveness.requestRejoin(m)
}
