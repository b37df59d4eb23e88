package gossip

import "meshd/state"

// sendPing asks a member whether it is there, and in the first rounds of a check
// three others to ask it. Only an answer with the nonce of the question counts:
// whoever gives it got the question, so it is where we asked.
func (c *Core) sendPing(m *member) {
	e := c.newPacket()
	e.ping(framePing, pingFrame{nonce: m.nonce, target: m.id})
	c.send(m.id, e)
	if m.candidate.known() {
		e := c.newPacket()
		e.ping(framePing, pingFrame{nonce: m.candidate.nonce, target: m.id})
		c.sendTo(m.id, m.candidate.addr, e)
	}
	if m.phase != phaseVerify || m.pingCount > 3 {
		return
	}
	if m.relayNonce == 0 {
		m.relayNonce = c.newNonce()
	}
	c.relayBudget.refill(askRate, c.now)
	if c.relayBudget.empty(askRate) {
		return
	}
	for _, to := range c.pick(c.living(""), 3, m.id) {
		c.relayBudget.take(0)
		e := c.newPacket()
		e.ping(frameAsk, pingFrame{nonce: m.relayNonce, target: m.id, addr: m.addr})
		c.send(to, e)
	}
}

// askRate bounds how often others are asked for members in doubt, whoever made
// so many doubtful; what is over it is left to the pings from here.
var askRate = rate{bytes: 1 << 20, packets: 1 << 10, seconds: 4}

func (c *Core) newNonce() uint64 { return c.rng.Uint64() | 1 }

// onPing handles the four frames of a check.
func (c *Core) onPing(from state.NodeID, typ byte, p []byte) error {
	f, err := decodePing(p)
	if err != nil {
		return err
	}
	switch typ {
	case framePing: // the answer goes to the sender; target names whom it is for
		if f.goodbye == goodbyeAsked {
			f.goodbye = c.goodbyeAnswer()
		}
		e := c.newPacket()
		e.ping(frameAck, f)
		c.answerPing(from, e)
	case frameAck:
		c.onAck(from, f)
	case frameAsk:
		c.onAsk(from, f)
	case frameHeard:
		c.onHeard(f)
	}
	return nil
}

// answerPing sends the answer back to where the ping came from: two that moved at
// once, and look for each other, know each other's former places only. A ping that
// came as a datagram is answered by one, or it could not tell that they arrive.
func (c *Core) answerPing(from state.NodeID, e *encoder) {
	if c.usableAddr(c.packetFrom) {
		c.sendTo(from, c.packetFrom, e)
	} else {
		c.send(from, e)
	}
}

// onAck handles the answer to a ping: one that we sent for somebody is passed
// on, one of ours tells where its sender is.
func (c *Core) onAck(from state.NodeID, f pingFrame) {
	m := c.members[from]
	switch {
	case f.target != "" && f.target != from:
		if m == nil || c.members[f.target] == nil { // a ping that we sent for somebody, who must be a member
			c.Stats.AsksDropped++
			return
		}
		e := c.newPacket()
		e.ping(frameHeard, pingFrame{nonce: f.nonce, target: from})
		c.send(f.target, e)
	case c.onJoinPingAnswer(from, f):
	case m == nil:
	case c.onGoodbyeAnswer(m, f):
	case m.candidate.known() && f.nonce == m.candidate.nonce:
		m.candidate.answeredAt = c.now
	case f.nonce == m.nonce:
		c.markReached(m)
	}
}

// onAsk pings a member for another: only at the address where this node knows
// it, and only so often, or everybody could make the mesh send packets to
// whomever they like (G13).
func (c *Core) onAsk(from state.NodeID, f pingFrame) {
	m := c.members[f.target]
	if m == nil || c.members[from] == nil || !m.listed && !m.known() || !c.affordAsk(f.target) {
		c.Stats.AsksDropped++
		return
	}
	e := c.newPacket()
	e.ping(framePing, pingFrame{nonce: f.nonce, target: from})
	c.sendTo(m.id, m.addr, e)
}

// affordAsk takes one ping of a member from what others may ask for.
func (c *Core) affordAsk(target state.NodeID) bool {
	b := &c.budgetOf(target).asked
	b.refill(askedRate, c.now)
	if b.empty(askedRate) {
		return false
	}
	b.take(0)
	return true
}

// onHeard handles the word of another that it reached a node. It counts as long
// as we asked for it, and keeps the node served, after the rest.
func (c *Core) onHeard(f pingFrame) {
	m := c.members[f.target]
	if m == nil || m.relayNonce == 0 || f.nonce != m.relayNonce || c.now-m.since > maxExtension {
		return
	}
	m.relayNonce = 0
	c.observe(m, signRelayed)
	c.requestRejoin(m)
}

// requestRejoin asks for a join of a member that the membership does not list.
func (c *Core) requestRejoin(m *member) {
	if !m.listed && m.known() {
		c.emit(Event{Kind: EventRejoin, Node: m.id, Addr: m.addr})
	}
}
