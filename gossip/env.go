package gossip

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"meshd/state"
)

// This file owns what every part of a core shares: configuration, clock, dice,
// store and counters. It touches none of the parts.

// env is what all parts of a core share: who the node is, the time of the step, the
// dice and the counters. Parts read it; what they change in it is said at the field.
// It reaches nothing outside the core.
type env struct {
	// Set once, by NewCore.

	cfg   CoreConfig
	rng   *rand.Rand   // the core's alone: the order of draws is part of its determinism (G10)
	store *state.Store // the node's tables

	// Of the step at hand.

	now time.Duration // the core's clock; it never goes backwards
	// packetFrom is where the datagram that is being handled came from; the zero
	// AddrPort if that is not known, or if the step is none of a datagram.
	packetFrom netip.AddrPort

	// What becomes of this node.

	leftAt  time.Duration // when it left in order; 0: it has not. Set by Core.Leave
	yielded bool          // another live node has its name, so it publishes nothing (S7). Set by duplicates

	Stats Stats // each part counts what it does
}

// advance moves the core's clock; time never goes backwards for it.
func (e *env) advance(now time.Duration) { e.now = max(e.now, now) }

// left reports whether this node has said goodbye.
func (e *env) left() bool { return e.leftAt > 0 }

// speakAfterLeaving is how long a node that has left still speaks: its goodbye, which
// it repeats. What it said later would bring it back.
const speakAfterLeaving = 2 * time.Second

// silenced reports whether this node has left, so that it must not speak.
func (e *env) silenced() bool { return e.leftAt > 0 && e.now-e.leftAt > speakAfterLeaving }

// jitter returns d ± 25 %.
func (e *env) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(e.rng.Int64N(int64(d)/2+1))
}

func (e *env) newNonce() uint64 { return e.rng.Uint64() | 1 }

// newPacket starts a packet of ours.
func (e *env) newPacket() *encoder { return newEncoder(e.cfg.Self, e.cfg.Boot) }

// usableAddr reports whether packets may be sent to an address that a peer told: it
// is one that a node can have, and our own host only if we are reached there.
func (e *env) usableAddr(a netip.AddrPort) bool {
	return state.CheckPeerAddr(a) == nil && (!a.Addr().IsLoopback() || !e.cfg.Addr.IsValid() ||
		e.cfg.Addr.Addr().IsLoopback())
}
