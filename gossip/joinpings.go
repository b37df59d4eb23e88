package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// After a join, this file asks the node at that address who it is, and takes it
// for a member if it answers from there. It owns the nonces of those questions.

// joinPing is a question to an address where a node answered a join: who is it? The
// membership may list another node there that a hostile one made up, or refuse to
// list the one that answers: it takes a node for dead at the highest incarnation that
// there is, say, and nothing that the node says of itself can be newer (G17).
type joinPing struct {
	nonce uint64
	until time.Duration
}

// How long the answer to a joinPing is waited for, and how many may be open.
const (
	joinPingTimeout = 5 * time.Second
	maxJoinPings    = 64
)

// joinAnswered pings an address where a node answered a join, unless a living
// member has shown that it is there: a node that is reported dead again and again
// would be joined as often.
func (k *checks) joinAnswered(addr netip.AddrPort) {
	for a, x := range k.joinPings {
		if k.now > x.until {
			delete(k.joinPings, a)
		}
	}
	if k.usableAddr(addr) && !k.roster.provenAt(addr) && len(k.joinPings) < maxJoinPings {
		x := joinPing{k.newNonce(), k.now + joinPingTimeout}
		k.joinPings[addr] = x
		e := k.newPacket()
		e.ping(framePing, pingFrame{nonce: x.nonce})
		k.outbox.sendTo("", addr, e)
	}
}

// onJoinPingAnswer takes the sender of the datagram at hand for a member, if the
// datagram answers a joinPing from where it was sent to.
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
