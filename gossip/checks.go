package gossip

import (
	"net/netip"

	"meshd/state"
)

// The four frames of a check (ping, ack, ask, heard), and the step that sends the
// pings that are due. Answers become signs of liveness.

// checks answers pings.
type checks struct {
	*env
	roster   *roster
	outbox   *outbox
	pings    *pings
	goodbyes *goodbyes
	liveness *liveness

	joinPings map[netip.AddrPort]joinPing
}

// run sends the pings that are due and judges those whose time is up.
func (k *checks) run() {
	for _, id := range k.pings.ids() {
		m := k.roster.members[id]
		if k.now < m.pingAt {
			continue
		}
		k.liveness.extendCheck(m)
		if m.phase == phaseVerify && k.now >= m.checkUntil {
			k.liveness.endCheck(m)
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

// onPing handles the four frames of a check.
func (k *checks) onPing(from state.NodeID, typ byte, p []byte) error {
	f, err := decodePing(p)
	if err != nil {
		return err
	}
	switch typ {
	case framePing: // the answer goes to the sender; target names whom it is for
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

// answerPing sends the answer back to where the ping came from: two that moved at
// once, and look for each other, know each other's former places only. A ping that
// came as a datagram is answered by one, or it could not tell that they arrive.
func (k *checks) answerPing(from state.NodeID, e *encoder) {
	if k.usableAddr(k.packetFrom) {
		k.outbox.sendTo(from, k.packetFrom, e)
	} else {
		k.outbox.send(from, e)
	}
}

// onAck handles the answer to a ping: one that we sent for somebody is passed
// on, one of ours tells where its sender is.
func (k *checks) onAck(from state.NodeID, f pingFrame) {
	m := k.roster.members[from]
	switch {
	case f.target != "" && f.target != from:
		if m == nil || k.roster.members[f.target] == nil { // a ping that we sent for somebody, who must be a member
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

// onAsk pings a member for another: only at the address where this node knows
// it, and only so often, or everybody could make the mesh send packets to
// whomever they like (G13).
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

// affordAsk takes one ping of a member from what others may ask for.
func (k *checks) affordAsk(target state.NodeID) bool {
	b := &k.outbox.budgetOf(target).asked
	b.refill(askedRate, k.now)
	if b.empty(askedRate) {
		return false
	}
	b.take(0)
	return true
}

// onHeard handles the word of another that it reached a node. It counts as long
// as we asked for it, and keeps the node served, after the rest.
func (k *checks) onHeard(f pingFrame) {
	m := k.roster.members[f.target]
	if m == nil || m.relayNonce == 0 || f.nonce != m.relayNonce || k.now-m.since > maxExtension {
		return
	}
	m.relayNonce = 0
	k.liveness.observe(m, signRelayed)
	k.liveness.requestRejoin(m)
}
