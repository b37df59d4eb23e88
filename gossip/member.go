package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// What a core keeps of one other node. Only liveness and the parts around it
// (pings, goodbyes, checks) write it; the others read it through roster.

// member is the core's view of one other node (S9). Local, never replicated.
type member struct {
	id           state.NodeID
	place              // where it is, as far as we know
	candidate    place // where else it may be; the zero place: nowhere
	phase        phase
	listed       bool // membership says it is alive
	boot         uint64
	since        time.Duration // of the phase
	checkUntil   time.Duration // of phaseVerify: when it ends without an answer
	reportedDead bool          // reported dead while it was alive
	checkedAt    time.Duration // when its last check began, or will; 0: never
	falseAlarmAt time.Duration // when it last turned out to live after all; 0: never
	heardAt      time.Duration // last packet from it
	seen         bool          // heard or listed in this life of ours
	// proven is whether it showed in this life of ours that there is such a node:
	// it answered us, or spoke and states where it is. What is only said to be a
	// member counts nowhere.
	proven bool
	// streamTill is until when everything for it goes over streams: datagrams
	// do not seem to arrive.
	streamUntil time.Duration

	goodbyeAskedAt time.Duration // when it was last asked whether it leaves; 0: never
	relayNonce     uint64        // the nonce of the pings that others were asked for
	reachedAt      time.Duration // last time that it answered us, not others
	datagramAt     time.Duration // last time that it answered a datagram of ours with one
	pingAt         time.Duration // 0: not pinging
	pingCount      int
	offered        bool
	// aged is how far its streams have been put away, so that the long dead cost
	// nothing: 1 not offered any more, 2 buried in all tables.
	retired int
}

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

// reachable reports whether packets should go to a member: it is thought to
// live, and somebody knows where.
func (m *member) reachable() bool {
	return (m.phase == phaseAlive || m.phase == phaseVerify) && (m.listed || m.addr.IsValid())
}

// newcomer reports whether there is nothing of a member but the list.
func (m *member) newcomer() bool { return m.listed && !m.proven }

// retryable reports whether a member is one of the dead that are pinged now and then.
func (m *member) retryable() bool {
	return (m.phase == phaseDead || m.phase == phaseKept || m.phase == phaseAbsent) && m.pingAt == 0 && m.known()
}

// host stands for the machine at which a member is: its address without the
// port, but on loopback, where there are trials of many nodes.
func (m *member) host() netip.AddrPort {
	if a := m.addr.Addr().Unmap(); !a.IsLoopback() {
		return netip.AddrPortFrom(a, 0)
	}
	return m.addr
}

func livenessOf(p phase) state.Liveness {
	switch p {
	case phaseAlive:
		return state.Alive
	case phaseVerify, phaseRelayed:
		return state.Suspected
	case phaseKept:
		return state.Kept
	}
	return state.Dead
}
