package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// place is an address at which a member may be. Addresses are told by the
// membership, by the member's own record and, when two of them contradict, by
// whoever says so; a member is where it answers.
type place struct {
	addr     netip.AddrPort
	nonce    uint64        // of the pings to it
	first    time.Duration // when it was first asked, of a rival
	answered time.Duration // of a rival
	former   bool          // of a rival: the member was there before it answered where it is
}

func (p place) known() bool { return p.addr.IsValid() }

// usable reports whether packets may be sent to an address that a peer told: it
// is one that a node can have, and our own host only if we are reached there.
func (c *Core) usable(a netip.AddrPort) bool {
	return state.CheckPeerAddr(a) == nil && (!a.Addr().IsLoopback() || !c.cfg.Addr.IsValid() ||
		c.cfg.Addr.Addr().IsLoopback())
}

// put notes where a member is, says somebody who should know.
func (c *Core) put(m *member, a netip.AddrPort) {
	if a == m.addr || !c.usable(a) {
		return
	}
	m.place = place{addr: a, nonce: c.nonce()}
	if m.rival.addr == a {
		m.rival = place{}
	}
}

// Conflict tells the core that the membership saw a name at another address
// than the one it lists: the node came back elsewhere before it was missed, or
// two have the name (S7). Which it is, their answers tell.
func (c *Core) Conflict(now time.Duration, id state.NodeID, addr netip.AddrPort) {
	c.advance(now)
	if id == c.cfg.Self {
		c.meetClone(addr)
		return
	}
	if m := c.members[id]; m != nil {
		c.suspectPlace(m, addr)
	}
}

// suspectPlace asks for a member at another address too. One at a time: whoever
// makes addresses up must not have us ping them all. Only the place that it has
// just left gives way: a node may move again at once.
func (c *Core) suspectPlace(m *member, addr netip.AddrPort) {
	if addr == m.addr || addr == m.rival.addr || m.rival.known() && !m.rival.former || !c.usable(addr) {
		return
	}
	m.rival = place{addr: addr, nonce: c.nonce(), first: c.now}
	if m.phase != phaseVerify {
		m.pings = 0
	}
	c.pingLater(m, max(c.now, 1))
}

// settlePlace decides between two addresses of a member: it is where it
// answers, and where it was if it answers at both or at none. An answer at the
// old address ends the question at once (reached).
func (c *Core) settlePlace(m *member) {
	if !m.rival.known() {
		return
	}
	asked := c.now - m.rival.first
	switch {
	case asked >= c.cfg.VerifyFor*3/4 && m.rival.answered > 0:
		old := m.place
		m.place = m.rival
		m.rival = place{addr: old.addr, nonce: old.nonce, first: c.now, former: true}
		if m.listed {
			c.event(Event{Kind: EventMoved, Node: m.id, Addr: m.addr})
		}
		c.rejoin(m)
	case asked > 4*c.cfg.VerifyFor:
		m.rival = place{}
	}
}
