package gossip

import (
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// acquaintance is an address where somebody answered a join, and whom the core asks
// who it is. The membership may list others there, whom somebody made up, or refuse
// to list it at all: it takes a node for dead at the highest incarnation that there
// is, say, and nothing that the node says of itself can be newer (G17).
type acquaintance struct {
	nonce uint64
	till  time.Duration
}

const (
	acquaintFor     = 5 * time.Second // for its answer
	maxAcquaintance = 64
)

// JoinAnswered tells the core that a node at an address answered a join: who it is,
// its answer to a ping tells. Where a member that lives showed that it is there, that
// is known: whoever reports it dead without end makes nodes join it as often.
func (c *Core) JoinAnswered(now time.Duration, addr netip.AddrPort) {
	c.advance(now)
	for a, x := range c.acquaint {
		if now > x.till {
			delete(c.acquaint, a)
		}
	}
	if c.usable(addr) && !c.provenAt(addr) && len(c.acquaint) < maxAcquaintance {
		x := acquaintance{c.nonce(), c.now + acquaintFor}
		c.acquaint[addr] = x
		e := c.packet()
		e.ping(framePing, pingFrame{nonce: x.nonce})
		c.sendTo("", addr, e)
	}
	c.settle()
}

// provenAt reports whether a living member showed that it is at an address.
func (c *Core) provenAt(addr netip.AddrPort) bool {
	return slices.ContainsFunc(c.ordered, func(m *member) bool {
		return m.addr == addr && m.proven && m.phase == phaseAlive
	})
}

// acquainted takes the sender of the datagram at hand for a member if it answers
// such a ping from where it was asked.
func (c *Core) acquainted(from state.NodeID, f pingFrame) bool {
	x, asked := c.acquaint[c.cameFrom]
	if !asked || f.nonce != x.nonce || c.now > x.till {
		return false
	}
	if c.members[from] == nil && len(c.members) >= maxMembers {
		return false
	}
	delete(c.acquaint, c.cameFrom)
	m := c.member(from)
	m.met = true
	if !m.known() {
		c.put(m, c.cameFrom)
	}
	if m.addr != c.cameFrom {
		c.suspectPlace(m, c.cameFrom)
		return true
	}
	c.sign(m, signHeard)
	c.reached(m)
	return true
}
