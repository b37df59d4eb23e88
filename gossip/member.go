package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// What a core keeps of one other node. Only liveness and the parts around it
// (pings, goodbyes, checks) write it; the others read it through roster.

// member is the core's view of one other node (S9). It is local and never
// replicated.
type member struct {
	// Who and where it is.

	id        state.NodeID // its name
	boot      uint64       // of its last packet; 0: none came. Another one is another life (G11)
	place                  // where it is, as far as this node knows
	candidate place        // where else it may be, see considerAddr; the zero place: nowhere

	// What is made of it. liveness writes this.

	phase        phase         // what it is taken for
	since        time.Duration // of the phase
	checkUntil   time.Duration // in phaseVerify: when the check ends without an answer
	checkedAt    time.Duration // when its last check began, or begins; 0: never
	waits        bool          // in phaseVerify: others ping it, and this node only before the check ends (G11)
	unlistedAt   time.Duration // when the membership last reported its death
	lookAgainAt  time.Duration // when a report that was put off is looked at again; 0: none was
	reportedDead bool          // the membership reported it dead while it was alive
	falseAlarmAt time.Duration // when such a report last turned out wrong; 0: never
	offered      bool          // its streams are offered to others
	retired      retirement    // how far its streams are put away
	streamUntil  time.Duration // until then packets to it go over streams: datagrams do not seem to arrive
	goodbyeAsked time.Duration // when it was last asked whether it leaves; 0: never

	// What it showed.

	listed     bool          // the membership lists it. roster.setListed writes it
	seen       bool          // it was heard or listed since this node started
	proven     bool          // it showed that it exists: it answered, or spoke and states where it is (G17)
	heardAt    time.Duration // its last packet
	reachedAt  time.Duration // when it last answered this node itself
	rejoinAt   time.Duration // when the layer above was last asked to have it listed
	datagramAt time.Duration // when it last answered a datagram with a datagram
	pushedAt   time.Duration // when a change that it made was last pushed to this node; 0: never
	refutedAt  time.Duration // when that was a beacon; 0: never
	pulledAt   time.Duration // when this node last pulled one, which may be old; 0: never

	// The pings to it. pings writes this.

	pingAt     time.Duration // when the next one is due; 0: it is not pinged
	pingCount  int           // pings in a row without an answer
	relayNonce uint64        // of the pings that others were asked to send; 0: none
	pingSlot   int           // its place in pings.pinging

	// How it stands in the roster's lists. roster writes this.

	lists listing      // in which of them it is
	host  hostStanding // where it counts
	gone  bool         // it is no member any more
}

// retirement is how far the streams of a member that is gone have been put away, so
// that the long dead cost nothing.
type retirement uint8

const (
	inService  retirement = iota
	notOffered            // its streams are not offered to peers any more
	dropped               // its streams are dropped in all tables, their heads kept
)

// place is an address at which a member may be, and what is known of it there. Only
// an answer with the nonce of a ping to that address shows that the member is there.
type place struct {
	addr       netip.AddrPort
	nonce      uint64        // of the pings to it
	firstAsked time.Duration // of a candidate: when it was first pinged there
	answeredAt time.Duration // of a candidate: when it last answered there; 0: never
	former     bool          // of a candidate: the member was there before it answered where it is now
}

func (p place) known() bool { return p.addr.IsValid() }

// reachable reports whether packets should go to a member: it is taken for alive,
// and its address is known here or to the membership.
func (m *member) reachable() bool {
	return (m.phase == phaseAlive || m.phase == phaseVerify) && (m.listed || m.addr.IsValid())
}

// newcomer reports whether the list is all that there is of a member.
func (m *member) newcomer() bool { return m.listed && !m.proven }

// retryable reports whether a member is one of the dead that are pinged now and
// then.
func (m *member) retryable() bool {
	return (m.phase == phaseDead || m.phase == phaseKept || m.phase == phaseAbsent) && m.pingAt == 0 && m.known()
}

// dueAt and slot make a member one of the appointments of pings.
func (m *member) dueAt() time.Duration { return m.pingAt }
func (m *member) slot() *int           { return &m.pingSlot }

// needsLook reports whether something may become of a member by itself within seconds:
// it is not listed and lives, or vanished a moment ago; it is kept; it has yet to show
// that it exists; or it is not clear where it is.
func (m *member) needsLook(now time.Duration) bool {
	switch {
	case m.candidate.known(), m.phase == phaseKept:
		return true
	case m.listed:
		return m.phase == phaseAlive && !m.proven
	}
	return m.phase == phaseAlive || m.phase == phaseRelayed || now-m.since <= deadMemory
}

// hostAddr stands for the machine at which a member is: its address without the port.
// On loopback, where trials run many nodes on one machine, the port counts.
func (m *member) hostAddr() netip.AddrPort {
	if a := m.addr.Addr().Unmap(); !a.IsLoopback() {
		return netip.AddrPortFrom(a, 0)
	}
	return m.addr
}

// livenessOf returns how the store serves a member in phase p.
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
