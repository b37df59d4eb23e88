package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// CoreConfig tunes the protocol. The zero value of a field means its default.
type CoreConfig struct {
	Self state.NodeID
	Boot uint64         // identifies the life of the process (G11); lower = started earlier
	Addr netip.AddrPort // where others reach this node

	Fanout      int           // participants that a change is pushed to, and relayed to once (G3)
	Coalesce    time.Duration // pushes closer together than this travel together
	PushRate    int           // bytes per second of pushes; above, peers are told to pull (G7)
	PushBurst   int           // bytes
	Datagram    int           // largest packet sent as a datagram (G5)
	Chunk       int           // largest packet sent over a stream (G5)
	RepairBusy  time.Duration // between hash comparisons after news (G4)
	RepairIdle  time.Duration // between hash comparisons when nothing happens
	BusyFor     time.Duration // how long news keeps repair busy
	HotAfter    time.Duration // after news: tell random peers "I have" (lost pushes)
	WantTimeout time.Duration // a large pull that is not answered by then is tried elsewhere

	VerifyFor time.Duration // how long a reported death is checked before hiding (S9), at least
	Silence   time.Duration // hide no sooner than that long after a node fell silent; 0: VerifyFor alone decides
	Suspicion time.Duration // of Silence, the membership has used that much per decade of members
	Probing   time.Duration // between the membership's probes; 0: it does not say who answers

	D1       time.Duration // dead for that long: no longer offered (S9)
	D2       time.Duration // dead for that long: dropped, head kept; at least 2·D1
	Graves   time.Duration // how long a dropped head is kept
	Preserve float64       // share of members whose vanishing keeps them served (S12)
	Window   time.Duration // within this time
	MinMesh  int           // in meshes of at least that many others

	TombstoneAge time.Duration // S6
	Grace        time.Duration // V5: how long a service keeps its old address in a move
	Reservation  time.Duration // V2: how long the claim of a service without tasks is kept
	Quarantine   time.Duration // V5: before a freed address goes to another service
	BeaconEvery  time.Duration // one beacon of the whole mesh in that time; 0: none

	// Company says that there are others to be found: a node that knows nobody
	// yet waits for them a while before it takes itself for synced (R4) and
	// claims addresses (V3).
	Company bool

	// Peers, when set, are all participants of every network, alive and never
	// changing: for simulations too large for a membership per node.
	Peers []state.NodeID
}

func (c *CoreConfig) setDefaults() {
	def(&c.Fanout, 6)
	def(&c.Coalesce, 3*time.Millisecond)
	def(&c.PushRate, 4<<20)
	def(&c.PushBurst, 1<<20)
	def(&c.Datagram, 1150)
	def(&c.Chunk, 256<<10)
	def(&c.RepairBusy, 100*time.Millisecond)
	def(&c.RepairIdle, time.Second)
	def(&c.BusyFor, 2*time.Second)
	def(&c.HotAfter, 5*time.Millisecond)
	def(&c.WantTimeout, 150*time.Millisecond)
	def(&c.VerifyFor, 400*time.Millisecond)
	def(&c.D1, 30*time.Minute)
	def(&c.D2, 2*c.D1)
	c.D2 = max(c.D2, 2*c.D1)
	def(&c.Graves, 24*time.Hour)
	def(&c.Preserve, 0.6)
	def(&c.Window, 30*time.Second)
	def(&c.MinMesh, 5)
	def(&c.TombstoneAge, 15*time.Minute)
	def(&c.Grace, 30*time.Second)
	def(&c.Reservation, 24*time.Hour)
	def(&c.Quarantine, 10*time.Minute)
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
