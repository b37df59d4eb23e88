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

// What one packet may make this node send is bounded three times (G13): by the
// packet, by its sender, and over all senders, since names cost nothing. What is
// over a bound is dropped, counted and left to repair.
const (
	maxPacket      = 1 << 20 // bytes; we send no more than a Chunk and what goes with it
	maxFrames      = 16      // of a packet; we write two at most
	maxSameFrames  = 4       // of one type in a packet; we write one
	answerPackets  = 1 << 10 // that one packet may cause
	answerControl  = 64 << 10
	maxPeerBudgets = 4096     // senders with a budget of their own; the others share one
	maxSends       = 1 << 16  // packets that wait for Drain
	maxSendBytes   = 16 << 20 // of them
	maxEvents      = 1 << 12  // that wait for Drain; news of members is kept above it
)

// The rates of answers: a join of 100,000 endpoints takes 6 MB in a tenth of a
// second, at most 3 MB of them from one peer.
var (
	peerRate   = rate{bytes: 16 << 20, packets: 4 << 10, seconds: 2}
	sharedRate = rate{bytes: 32 << 20, packets: 32 << 10, seconds: 4}
	// Pings of one member that others asked for: when a node is in doubt, every
	// other asks three for three of them.
	askedRate = rate{bytes: 4 << 10, packets: 32, seconds: 2}
)

// rate fills a bucket.
type rate struct {
	bytes, packets float64 // per second
	seconds        float64 // how many seconds' worth a full bucket holds
}

// bucket holds what may be answered now. The zero bucket is full.
type bucket struct {
	bytes, packets float64 // what was taken and is not yet filled up
	at             time.Duration
}

// refill lets the time pass.
func (b *bucket) refill(r rate, now time.Duration) {
	s := (now - b.at).Seconds()
	b.bytes, b.packets, b.at = max(b.bytes-s*r.bytes, 0), max(b.packets-s*r.packets, 0), now
}

// empty reports whether there is nothing left.
func (b *bucket) empty(r rate) bool {
	return b.bytes >= r.seconds*r.bytes || b.packets >= r.seconds*r.packets
}

func (b *bucket) take(n int) {
	b.bytes += float64(n)
	b.packets++
}

// peerBudget is what the core keeps of one sender of packets.
type peerBudget struct {
	bucket
	reportedAt time.Duration // when something that it sent was last told as an event
	unreported int           // how many times it was not, since
	asked      bucket        // pings that others asked us to send it
}

// answerBudgets is the budget of answers.
type answerBudgets struct {
	shared    bucket
	strangers peerBudget
	peers     map[state.NodeID]*peerBudget

	// The same for packets that came from where their sender is known to be, by
	// that address: a name is easily written, and must not be drained by others.
	byAddress      map[netip.Addr]*bucket
	byAddressTotal bucket // of all of them

	// Of the packet that is being handled; peer is nil if none is.
	peer           *peerBudget
	senderBucket   *bucket // of its sender
	totalBucket    *bucket // of all
	deltaBytesLeft int     // bytes of deltas that may still be sent
	bytesLeft      int     // bytes of anything
	packetsLeft    int
	frames         int
	frameCounts    [frameKinds]uint8
}

// newAnswerBudgets returns budgets that are full.
func newAnswerBudgets() answerBudgets {
	return answerBudgets{peers: map[state.NodeID]*peerBudget{}, byAddress: map[netip.Addr]*bucket{}}
}

// budgetOf returns the budget of a sender. Those that the membership knows, or
// that say where they are, have their own.
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

// addressBudget returns the budget of an address at which a sender is known to be, nil
// for others. All who are there share it: whoever makes many names of itself has
// no more than one.
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

// beginPacket starts to handle a packet that came from an address; the zero Addr if
// that is not known.
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

// endPacket ends it.
func (o *outbox) endPacket() { o.budgets.peer, o.budgets.senderBucket = nil, nil }

// handlesPacket reports whether a packet of a peer is being handled, so that what is
// sent is bounded by its budgets.
func (o *outbox) handlesPacket() bool { return o.budgets.peer != nil }

// mayRead reports whether one more frame of that type is read: no honest packet
// has so many, and an answer costs more than its question.
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

// afford takes an answer of n bytes from the budgets, if a packet causes it.
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

// affordReply takes an answer that a handler took its time for.
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

// deltasSent takes the bytes that are left of deltaBudget.
func (o *outbox) deltasSent(left int) { o.budgets.deltaBytesLeft = left }

// reportInterval spaces the events about what one peer sends (G13).
const reportInterval = 10 * time.Second

// mayReport reports whether something that a peer sent is to be told, and how often
// it was not since the last time.
func (o *outbox) mayReport(from state.NodeID) (leftOut int, ok bool) {
	p := o.budgetOf(from)
	if p.reportedAt > 0 && o.now-p.reportedAt < reportInterval {
		p.unreported++
		return 0, false
	}
	leftOut, p.unreported, p.reportedAt = p.unreported, 0, max(o.now, 1)
	return leftOut, true
}

// sweepBudgets forgets the budgets that are full.
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
