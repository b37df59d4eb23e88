package gossip

import (
	"net/netip"

	"meshd/state"
)

// Where a member is. Addresses come from the membership, from the member's own
// record and from whoever claims another one; a member is where it answers. This
// file decides between two addresses of one member, and touches nothing else of
// it.

// setAddr sets where a member is, on good authority.
func (l *liveness) setAddr(m *member, a netip.AddrPort) {
	if a == m.addr || !l.usableAddr(a) {
		return
	}
	m.place = place{addr: a, nonce: l.newNonce()}
	if m.candidate.addr == a {
		m.candidate = place{}
	}
	l.roster.update(m)
}

// learnAddr takes a node's address from its own record. Where the membership has
// none, the record's counts; where it has another one, the record's is only a
// candidate: the record may be of a former life, or the address may.
func (l *liveness) learnAddr(id state.NodeID) {
	m := l.roster.members[id]
	if m == nil {
		return
	}
	n, ok := l.store.Node(id)
	switch {
	case !ok || !n.Addr.IsValid():
	case m.known():
		l.considerAddr(m, n.Addr)
	default:
		l.setAddr(m, n.Addr)
	}
}

// considerAddr makes an address a candidate for a member, and has it pinged there
// as well. A member has one candidate at a time: a node that invents addresses
// must not make this one ping them all. Only a former place gives way: a node may
// move again at once.
func (l *liveness) considerAddr(m *member, addr netip.AddrPort) {
	if addr == m.addr || addr == m.candidate.addr || m.candidate.known() && !m.candidate.former || !l.usableAddr(addr) {
		return
	}
	m.candidate = place{addr: addr, nonce: l.newNonce(), firstAsked: l.now}
	if m.phase != phaseVerify {
		m.pingCount = 0
	}
	l.pings.schedule(m, max(l.now, 1)) // roster is told there
}

// resolveAddr decides between two addresses of a member: it is where it answers,
// and where it was if it answers at both or at neither. An answer at the old
// address ends the question at once, see markReached.
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
	l.roster.update(m)
}
