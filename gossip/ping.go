package gossip

import "meshd/state"

// onPing handles the four frames of a check.
func (c *Core) onPing(from state.NodeID, typ byte, p []byte) error {
	f, err := decodePing(p)
	if err != nil {
		return err
	}
	switch typ {
	case framePing: // the answer goes to the sender; target names whom it is for
		e := c.packet()
		e.ping(frameAck, f)
		c.send(from, e)
	case frameAck:
		c.onAck(from, f)
	case frameAsk:
		c.onAsk(from, f)
	case frameHeard:
		c.onHeard(f)
	}
	return nil
}

func (c *Core) onAck(from state.NodeID, f pingFrame) {
	m := c.members[from]
	if f.target == "" || f.target == from {
		if m != nil {
			c.reached(m)
		}
		return
	}
	if m == nil || c.members[f.target] == nil { // a ping that we sent for somebody, who must be a member
		c.Stats.AsksDropped++
		return
	}
	e := c.packet()
	e.ping(frameHeard, pingFrame{nonce: f.nonce, target: from})
	c.send(f.target, e)
}

// onAsk pings a member for another: only at the address where this node knows
// it, and only so often, or everybody could make the mesh send packets to
// whomever they like (G13).
func (c *Core) onAsk(from state.NodeID, f pingFrame) {
	m := c.members[f.target]
	if m == nil || c.members[from] == nil || !m.listed && !m.addr.IsValid() || !c.affordAsk(f.target) {
		c.Stats.AsksDropped++
		return
	}
	e := c.packet()
	e.ping(framePing, pingFrame{nonce: f.nonce, target: from})
	c.sendTo(m.id, m.addr, e)
}

// affordAsk takes one ping of a member from what others may ask for.
func (c *Core) affordAsk(target state.NodeID) bool {
	b := &c.budgetOf(target).asked
	b.fill(askedRate, c.now)
	if b.empty(askedRate) {
		return false
	}
	b.take(0)
	return true
}

func (c *Core) onHeard(f pingFrame) {
	if m := c.members[f.target]; m != nil && (m.phase == phaseVerify || m.phase == phaseDead) {
		c.setPhase(m, phaseShaky)
		if m.addr.IsValid() {
			c.event(Event{Kind: EventRejoin, Node: m.id, Addr: m.addr})
		}
	}
}
