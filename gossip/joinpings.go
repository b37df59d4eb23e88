package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// After a join, this file asks the node at that address who it is, and takes it
// for a member if it answers from there. It owns the nonces of those questions.

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

// joinAnswered pings the node at an address that answered a join, unless a living
// member has shown that it is there: whoever reports it dead without end makes nodes
// join it as often.
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
