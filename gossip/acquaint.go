package gossip

import (
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// joinPing is an address where somebody answered a join, and whom the core asks
// who it is. The membership may list others there, whom somebody made up, or refuse
// to list it at all: it takes a node for dead at the highest incarnation that there
// is, say, and nothing that the node says of itself can be newer (G17).
type joinPing struct {
	nonce uint64
	until time.Duration
}

const (
	joinPingTimeout = 5 * time.Second // for its answer
	maxJoinPings    = 64
)

// JoinAnswered tells the core that a node at an address answered a join: who it is,
// its answer to a ping tells. Where a member that lives showed that it is there, that
// is known: whoever reports it dead without end makes nodes join it as often.
func (c *Core) JoinAnswered(now time.Duration, addr netip.AddrPort) {
	c.advance(now)
	for a, x := range c.checks.joinPings {
		if now > x.until {
			delete(c.checks.joinPings, a)
		}
	}
	if c.usableAddr(addr) && !c.roster.provenAt(addr) && len(c.checks.joinPings) < maxJoinPings {
		x := joinPing{c.newNonce(), c.now + joinPingTimeout}
		c.checks.joinPings[addr] = x
		e := c.newPacket()
		e.ping(framePing, pingFrame{nonce: x.nonce})
		c.outbox.sendTo("", addr, e)
	}
	c.finishStep()
}

// provenAt reports whether a living member showed that it is at an address.
func (r *roster) provenAt(addr netip.AddrPort) bool {
	return slices.ContainsFunc(r.ordered, func(m *member) bool {
		return m.addr == addr && m.proven && m.phase == phaseAlive
	})
}

// onJoinPingAnswer takes the sender of the datagram at hand for a member if it answers
// such a ping from where it was asked.
func (k *checks) onJoinPingAnswer(from state.NodeID, f pingFrame) bool {
	x, asked := k.joinPings[k.packetFrom]
	if !asked || f.nonce != x.nonce || k.now > x.until {
		return false
	}
	if k.roster.members[from] == nil && len(k.roster.members) >= maxMembers {
		return false
	}
	delete(k.joinPings, k.packetFrom)
	m := k.liveness.ensureMember(from)
	m.seen = true
	if !m.known() {
		k.liveness.setAddr(m, k.packetFrom)
	}
	if m.addr != k.packetFrom {
		k.liveness.considerAddr(m, k.packetFrom)
		return true
	}
	k.liveness.observe(m, signHeard)
	k.liveness.markReached(m)
	return true
}
