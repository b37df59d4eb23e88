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
	addr       netip.AddrPort
	nonce      uint64        // of the pings to it
	firstAsked time.Duration // when it was first asked, of a rival
	answeredAt time.Duration // of a rival
	former     bool          // of a rival: the member was there before it answered where it is
}

func (p place) known() bool { return p.addr.IsValid() }

// usableAddr reports whether packets may be sent to an address that a peer told: it
// is one that a node can have, and our own host only if we are reached there.
func (e *env) usableAddr(a netip.AddrPort) bool {
	return state.CheckPeerAddr(a) == nil && (!a.Addr().IsLoopback() || !e.cfg.Addr.IsValid() ||
		e.cfg.Addr.Addr().IsLoopback())
}

// setAddr notes where a member is, says somebody who should know.
func (l *liveness) setAddr(m *member, a netip.AddrPort) {
	if a == m.addr || !l.usableAddr(a) {
		return
	}
	m.place = place{addr: a, nonce: l.newNonce()}
	if m.candidate.addr == a {
		m.candidate = place{}
	}
}

// Conflict tells the core that the membership saw a name at another address
// than the one it lists: the node came back elsewhere before it was missed, or
// two have the name (S7). Which it is, their answers tell.
func (c *Core) Conflict(now time.Duration, id state.NodeID, addr netip.AddrPort) {
	c.advance(now)
	if id == c.cfg.Self {
		c.duplicates.challenge(addr)
		return
	}
	if m := c.roster.members[id]; m != nil {
		c.liveness.considerAddr(m, addr)
	}
}

// considerAddr asks for a member at another address too. One at a time: whoever
// makes addresses up must not have us ping them all. Only the place that it has
// just left gives way: a node may move again at once.
func (l *liveness) considerAddr(m *member, addr netip.AddrPort) {
	if addr == m.addr || addr == m.candidate.addr || m.candidate.known() && !m.candidate.former || !l.usableAddr(addr) {
		return
	}
	m.candidate = place{addr: addr, nonce: l.newNonce(), firstAsked: l.now}
	if m.phase != phaseVerify {
		m.pingCount = 0
	}
	l.pings.schedule(m, max(l.now, 1))
}

// resolveAddr decides between two addresses of a member: it is where it
// answers, and where it was if it answers at both or at none. An answer at the
// old address ends the question at once (reached).
func (l *liveness) resolveAddr(m *member) {
	if !m.candidate.known() {
		return
	}
	asked := l.now - m.candidate.firstAsked
	switch {
	case asked >= l.cfg.VerifyFor*3/4 && m.candidate.answeredAt > 0:
		old := m.place
		m.place = m.candidate
		m.candidate = place{addr: old.addr, nonce: old.nonce, firstAsked: l.now, former: true}
		if m.listed {
			l.outbox.emit(Event{Kind: EventMoved, Node: m.id, Addr: m.addr})
		}
		l.requestRejoin(m)
	case asked > 4*l.cfg.VerifyFor:
		m.candidate = place{}
	}
}
