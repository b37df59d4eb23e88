package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// What one packet may make this node send is bounded three times (G13): by the
// packet, by its sender, and over all senders, since names cost nothing. What is
// over a bound is dropped, counted and left to repair. This file owns those
// budgets.

// The bounds of a packet, of what waits for Drain, and of the senders with a
// budget of their own.
const (
	maxPacket      = 1 << 20 // bytes; honest nodes send a Chunk and what goes with it at most
	maxFrames      = 16      // per packet; honest nodes write two at most
	maxSameFrames  = 4       // of one type per packet; honest nodes write one
	answerPackets  = 1 << 10 // packets that one packet may cause
	answerControl  = 64 << 10
	maxPeerBudgets = 4096     // senders with a budget of their own; the others share one
	maxSends       = 1 << 16  // packets that wait for Drain
	maxSendBytes   = 16 << 20 // bytes of them
	maxEvents      = 1 << 12  // that wait for Drain; news of members is kept above that
)

// The rates of answers. A join of 100,000 endpoints takes 6 MB in a tenth of a
// second, at most 3 MB of them from one peer.
var (
	peerRate   = rate{bytes: 16 << 20, packets: 4 << 10, seconds: 2}
	sharedRate = rate{bytes: 32 << 20, packets: 32 << 10, seconds: 4}
	// Pings to one member that others asked for: while a node is being checked, every
	// other node asks three peers for three of them.
	askedRate = rate{bytes: 4 << 10, packets: 32, seconds: 2}
)

// rate is how fast a bucket fills up, and how much it holds.
type rate struct {
	bytes, packets float64 // per second
	seconds        float64 // how many seconds' worth a full bucket holds
}

// bucket holds what may be spent now; it fills up at a rate. The zero bucket is full.
//
// Invariant: bytes and packets are what was taken and is not filled up yet, 0 or more.
type bucket struct {
	bytes, packets float64
	at             time.Duration // when it was last filled up
}

// refill adds what the time since the last call is worth.
func (b *bucket) refill(r rate, now time.Duration) {
	s := (now - b.at).Seconds()
	b.bytes, b.packets, b.at = max(b.bytes-s*r.bytes, 0), max(b.packets-s*r.packets, 0), now
}

// empty reports whether nothing is left.
func (b *bucket) empty(r rate) bool {
	return b.bytes >= r.seconds*r.bytes || b.packets >= r.seconds*r.packets
}

// take takes a packet of n bytes.
func (b *bucket) take(n int) {
	b.bytes += float64(n)
	b.packets++
}

// peerBudget is what the core keeps of one sender of packets.
type peerBudget struct {
	bucket
	reportedAt time.Duration // when an event about what it sent was last emitted; 0: never
	unreported int           // how many events were left out since
	asked      bucket        // pings to it that others asked for
}

// answerBudgets bounds what packets of peers may make this node send.
type answerBudgets struct {
	// By the name of the sender.

	shared    bucket                       // of all senders together
	strangers peerBudget                   // of all senders without a budget of their own
	peers     map[state.NodeID]*peerBudget // of known senders, at most maxPeerBudgets

	// By address, for packets that came from where their sender is known to be: a
	// name is easily written, and others must not use up its budget.

	byAddress      map[netip.Addr]*bucket // at most maxPeerBudgets
	byAddressTotal bucket                 // of all addresses together

	// Of the packet that is being handled.

	peer           *peerBudget       // of its sender; nil: no packet is being handled
	senderBucket   *bucket           // which of the above pays: the sender's
	totalBucket    *bucket           // and that of all
	deltaBytesLeft int               // bytes of deltas that may still be sent
	bytesLeft      int               // bytes of anything
	packetsLeft    int               // packets
	frames         int               // frames read so far
	frameCounts    [frameKinds]uint8 // the same by frame type
}

// newAnswerBudgets returns full budgets.
func newAnswerBudgets() answerBudgets {
	return answerBudgets{peers: map[state.NodeID]*peerBudget{}, byAddress: map[netip.Addr]*bucket{}}
}

// budgetOf returns the budget of a sender. A sender has its own if the membership
// lists it or its address is known; all others share one.
func (o *outbox) budgetOf(id state.NodeID) *peerBudget {
	a := &o.budgets
	if p := a.peers[id]; p != nil {
		return p
	}
	m := o.roster.members[id]
	if known := o.cfg.Peers != nil || m != nil && (m.listed || m.addr.IsValid()); !known ||
		len(a.peers) >= maxPeerBudgets {
		return &a.strangers
	}
	p := &peerBudget{}
	a.peers[id] = p
	return p
}

// addressBudget returns the budget of an address at which a sender is known to
// be, nil for others. All nodes at one address share it: a host gets no more by
// having many names.
func (o *outbox) addressBudget(id state.NodeID, at netip.Addr) *bucket {
	m := o.roster.members[id]
	if m == nil || !at.IsValid() || m.addr.Addr() != at {
		return nil
	}
	homes := o.budgets.byAddress
	b := homes[at]
	if b == nil && len(homes) < maxPeerBudgets {
		b = &bucket{}
		homes[at] = b
	}
	return b
}

// beginPacket starts the handling of a packet that came from an address; the zero
// Addr if that is not known.
func (o *outbox) beginPacket(from state.NodeID, at netip.Addr) {
	a := &o.budgets
	a.peer = o.budgetOf(from)
	a.senderBucket, a.totalBucket = &a.peer.bucket, &a.shared
	if home := o.addressBudget(from, at); home != nil {
		a.senderBucket, a.totalBucket = home, &a.byAddressTotal
	}
	a.senderBucket.refill(peerRate, o.now)
	a.totalBucket.refill(sharedRate, o.now)
	a.deltaBytesLeft, a.bytesLeft, a.packetsLeft, a.frames = o.cfg.Chunk-1024, o.cfg.Chunk+answerControl, answerPackets, 0
	a.frameCounts = [frameKinds]uint8{}
}

// endPacket ends the handling of a packet: what is sent now is not bounded by its
// budgets.
func (o *outbox) endPacket() { o.budgets.peer, o.budgets.senderBucket = nil, nil }

// handlesPacket reports whether a peer's packet is being handled, so that its
// budgets bound what is sent.
func (o *outbox) handlesPacket() bool { return o.budgets.peer != nil }

// mayRead reports whether one more frame of that type is read from the packet at
// hand: no honest packet has so many, and an answer costs more than its question.
func (o *outbox) mayRead(typ byte) bool {
	a := &o.budgets
	k := &a.frameCounts[typ%frameKinds]
	if a.frames++; a.frames > maxFrames || *k >= maxSameFrames {
		return false
	}
	*k++
	return typ == framePush || typ == frameDelta || typ == frameEqual || typ == frameEqual32 || typ == frameReply ||
		!a.senderBucket.empty(peerRate) && !a.totalBucket.empty(sharedRate)
}

// afford takes an answer of n bytes from the budgets of the packet at hand.
// Without one it takes nothing and reports true.
func (o *outbox) afford(n int) bool {
	a := &o.budgets
	switch {
	case a.peer == nil:
		return true
	case n > a.bytesLeft, a.packetsLeft <= 0, a.senderBucket.empty(peerRate), a.totalBucket.empty(sharedRate):
		o.Stats.AnswersDropped++
		return false
	}
	a.bytesLeft -= n
	a.packetsLeft--
	a.senderBucket.take(n)
	a.totalBucket.take(n)
	return true
}

// affordReply takes an answer that the layer above gives later.
func (o *outbox) affordReply(to state.NodeID, n int) bool {
	o.beginPacket(to, netip.Addr{})
	defer o.endPacket()
	return o.afford(n)
}

// deltaBudget is how many bytes of deltas may be sent now.
func (o *outbox) deltaBudget() int {
	if o.handlesPacket() {
		return o.budgets.deltaBytesLeft
	}
	return o.cfg.Chunk - 1024
}

// deltasSent sets what is left of deltaBudget.
func (o *outbox) deltasSent(left int) { o.budgets.deltaBytesLeft = left }

// reportInterval spaces the events about what one peer sends (G13).
const reportInterval = 10 * time.Second

// mayReport reports whether an event about what a peer sent may be emitted, and
// how many were left out since the last one.
func (o *outbox) mayReport(from state.NodeID) (leftOut int, ok bool) {
	p := o.budgetOf(from)
	if p.reportedAt > 0 && o.now-p.reportedAt < reportInterval {
		p.unreported++
		return 0, false
	}
	leftOut, p.unreported, p.reportedAt = p.unreported, 0, max(o.now, 1)
	return leftOut, true
}

// sweepBudgets forgets the budgets that are full again.
func (o *outbox) sweepBudgets() {
	for id, p := range o.budgets.peers {
		p.refill(peerRate, o.now)
		p.asked.refill(askedRate, o.now)
		if p.bytes == 0 && p.packets == 0 && p.asked.packets == 0 && o.now-p.reportedAt > reportInterval &&
			p.unreported == 0 && p != o.budgets.peer {
			delete(o.budgets.peers, id)
		}
	}
	for at, b := range o.budgets.byAddress {
		if b.refill(peerRate, o.now); b.bytes == 0 && b.packets == 0 && b != o.budgets.senderBucket {
			delete(o.budgets.byAddress, at)
		}
	}
}
