package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// This file owns the settings of a core and their defaults.

// CoreConfig tunes the protocol. The zero value of a field means its default.
// NewCore copies it; only SetReservation changes it afterwards.
type CoreConfig struct {
	// Who this node is. Self and Boot are required.

	Self state.NodeID   // its name
	Boot uint64         // identifies the life of the process (G11); of two, the lower one started first
	Addr netip.AddrPort // where other nodes reach this one

	// How changes spread (G3, G7).

	Fanout    int           // participants that a change is pushed to, and relayed to once
	Coalesce  time.Duration // pushes closer together than this travel together
	PushRate  int           // bytes per second of pushes; what is above it is left to pulls
	PushBurst int           // bytes that may be pushed at once
	HotAfter  time.Duration // from news until a peer gets the first "I have", in case the push missed it

	// How differences are found and mended (G4, G5).

	RepairBusy  time.Duration // between rounds of hash comparisons after news
	RepairIdle  time.Duration // between rounds when nothing happens
	BusyFor     time.Duration // how long one piece of news keeps repair busy
	WantTimeout time.Duration // a large pull that is not answered by then is tried at another peer
	Datagram    int           // bytes of the largest packet sent as a datagram; longer ones take a stream
	Chunk       int           // bytes of the largest packet sent over a stream

	// How a death is established (S9, G11).

	VerifyFor time.Duration // how long a reported death is checked before the node is hidden, at least
	Silence   time.Duration // a node is hidden no sooner than this after its last packet; 0: VerifyFor decides alone
	Suspicion time.Duration // the part of Silence that the membership uses up per decade of members
	Probing   time.Duration // between the membership's probes; 0: the membership does not report who answers

	// How long the dead are kept (S9).

	StopOfferingAfter time.Duration // a node dead for this long is no longer offered to peers
	DropAfter         time.Duration // its streams are dropped and only their heads kept; at least 2·StopOfferingAfter
	Graves            time.Duration // how long those heads are kept

	// When so many vanish that it is rather this node that is cut off (S12).

	Preserve       float64       // share of the members, from 0 to 1, whose vanishing turns self-preservation on
	PreserveWindow time.Duration // within which they have to vanish
	MinMesh        int           // other members that a mesh must have for that

	// Claims and tombstones (S6, V2, V5).

	TombstoneAge time.Duration // how long a deletion is kept
	Grace        time.Duration // how long a service keeps its old address in a move
	Reservation  time.Duration // how long the claim of a service without tasks is kept
	Quarantine   time.Duration // how long a freed address rests before another service gets it

	// What the layer above knows.

	BeaconEvery time.Duration // the whole mesh writes one beacon in this time; 0: none
	// ExpectPeers says that there are others to be found: a node that knows no
	// member yet waits for one before it takes itself for synced (R4) and claims
	// addresses (V3).
	ExpectPeers bool
	// Peers, when set, are all participants of every network, alive and never
	// changing: for simulations too large for a membership per node.
	Peers []state.NodeID
}

func (c *CoreConfig) setDefaults() {
	setDefault(&c.Fanout, 6)
	setDefault(&c.Coalesce, 3*time.Millisecond)
	setDefault(&c.PushRate, 4<<20)
	setDefault(&c.PushBurst, 1<<20)
	setDefault(&c.HotAfter, 3*time.Millisecond)
	setDefault(&c.RepairBusy, 100*time.Millisecond)
	setDefault(&c.RepairIdle, time.Second)
	setDefault(&c.BusyFor, 2*time.Second)
	setDefault(&c.WantTimeout, 150*time.Millisecond)
	setDefault(&c.Datagram, 1150)
	setDefault(&c.Chunk, 256<<10)
	setDefault(&c.VerifyFor, 400*time.Millisecond)
	setDefault(&c.StopOfferingAfter, 30*time.Minute)
	setDefault(&c.DropAfter, 2*c.StopOfferingAfter)
	c.DropAfter = max(c.DropAfter, 2*c.StopOfferingAfter)
	setDefault(&c.Graves, 24*time.Hour)
	setDefault(&c.Preserve, 0.6)
	setDefault(&c.PreserveWindow, 30*time.Second)
	setDefault(&c.MinMesh, 5)
	setDefault(&c.TombstoneAge, 15*time.Minute)
	setDefault(&c.Grace, 30*time.Second)
	setDefault(&c.Reservation, 24*time.Hour)
	setDefault(&c.Quarantine, 10*time.Minute)
}

// setDefault gives a field that is zero its default.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
