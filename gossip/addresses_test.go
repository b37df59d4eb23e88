package gossip

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// TestMovesAgain: a node that has just been found elsewhere may move again at
// once. The place it left is no reason to look nowhere else; one that is only
// made up still is.
func TestMovesAgain(t *testing.T) {
	at := func(n byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, n}), 7946)
	}
	c := NewCore(CoreConfig{Self: "self", Boot: 9}, rand.New(rand.NewPCG(1, 2)),
		state.NewStore("self", 1, state.DefaultLimits(), new(counter)))
	now := time.Second
	c.MemberAlive(now, "host", at(1))
	m := c.roster.members["host"]
	for place := byte(2); place < 5; place++ {
		c.Conflict(now, "host", at(place))
		c.Conflict(now, "host", at(200)) // somebody makes another one up
		if m.candidate.addr != at(place) {
			t.Fatalf("it is looked for at %v beside %v, not at %v", m.candidate.addr, m.addr, at(place))
		}
		now += c.cfg.VerifyFor
		c.advance(now)
		m.candidate.answeredAt = now
		c.liveness.resolveAddr(m)
		if m.addr != at(place) {
			t.Fatalf("it answers at %v, but is taken to be at %v", at(place), m.addr)
		}
		now += 50 * time.Millisecond
	}
}
