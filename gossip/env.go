package gossip

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"meshd/state"
)

// This file owns what every part of a core shares: configuration, clock, dice,
// store and counters. It touches none of the parts.

// env is what all parts of a core share. Parts read it; who writes a field is said
// there.
type env struct {
	// Fixed by NewCore.

	cfg   CoreConfig   // only Core.SetReservation changes it later
	rng   *rand.Rand   // the core's alone: the order of draws is part of its determinism (G10)
	store *state.Store // the node's tables

	// Of the step at hand; Core writes them.

	now time.Duration // the core's clock, from its start; it never goes backwards
	// packetFrom is where the datagram that is being handled came from; the zero
	// AddrPort if that is not known, or if no datagram is being handled.
	packetFrom netip.AddrPort

	// What becomes of this node.

	leftAt  time.Duration // when it left in order; 0: it has not. Core.Leave writes it
	yielded bool          // another live node has its name, so it publishes nothing (S7). duplicates writes it

	// Stats counts since the core's start; every part counts what it does.
	Stats Stats
}

// advance moves the core's clock to now, but never back.
func (e *env) advance(now time.Duration) { e.now = max(e.now, now) }

// left reports whether this node has said goodbye.
func (e *env) left() bool { return e.leftAt > 0 }

// speakAfterLeaving is how long a node that has left repeats its goodbye. A
// packet that it sent later would bring it back.
const speakAfterLeaving = 2 * time.Second

// silenced reports whether this node left so long ago that it must not speak any
// more.
func (e *env) silenced() bool { return e.leftAt > 0 && e.now-e.leftAt > speakAfterLeaving }

// jitter returns d ± 25 %.
func (e *env) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(e.rng.Int64N(int64(d)/2+1))
}

// newNonce returns a random number that is not 0.
func (e *env) newNonce() uint64 { return e.rng.Uint64() | 1 }

// newPacket starts a packet of this node.
func (e *env) newPacket() *encoder { return newEncoder(e.cfg.Self, e.cfg.Boot) }

// usableAddr reports whether packets may be sent to an address that came from a
// peer: a node can have it, and it is on this host only if this node is itself
// reached there.
func (e *env) usableAddr(a netip.AddrPort) bool {
	return state.CheckPeerAddr(a) == nil && (!a.Addr().IsLoopback() || !e.cfg.Addr.IsValid() ||
		e.cfg.Addr.Addr().IsLoopback())
}
