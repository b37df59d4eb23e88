package gossip

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"meshd/state"
)

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

// left reports whether this node has said goodbye.
func (e *env) left() bool { return e.leftAt > 0 }
