package gossip

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"meshd/state"
)

// This file owns the composition: which parts a core has, who is given what of
// whom, and the doors through which time and packets come in and effects leave.
// What happens behind a door is a part's.

// Send is a packet to put on the wire.
type Send struct {
	To       state.NodeID
	Addr     netip.AddrPort // where to; the zero AddrPort: where the membership lists To
	Reliable bool           // over a stream; else as a datagram
	Data     []byte         // the packet; the receiver of Send owns it
}

// Core is the replication protocol of one node as a deterministic state machine (G10):
// time, packets and reports of the membership go in; packets and events come out of
// Drain. It owns the node's state.Store. It is composed of parts, each with its own
// state; Core wires them, hands each input to the part that it is for, and ends every
// step with finishStep. Not safe for concurrent use.
type Core struct {
	*env

	// What the other parts stand on.

	roster roster // the other nodes
	outbox outbox // packets and events that wait for Drain
	nets   nets   // the networks in which this node takes part

	// Liveness: what becomes of the other nodes (S9, G11).

	pings    pings    // which member is pinged when
	goodbyes goodbyes // members that are asked whether they leave
	liveness liveness // the phase of each member
	checks   checks   // the frames of pings and their answers

	// Replication: how a change comes to every node (G3, G4).

	push   push   // what this node wrote or relays
	pull   pull   // what it asks for
	intake intake // deltas that arrive
	pace   pace   // when tables are compared
	probes probes // hashes of tables, as packets
	fetch  fetch  // tables that this node does not have yet
	repair repair // the comparison of tables

	// This node's own streams.

	claims      claims      // of the services hosted here (V2)
	incarnation incarnation // higher ones, when a peer holds more than this node wrote (S7)
	duplicates  duplicates  // another node with this node's name (S7)
	beacons     beacons     // time stamps, to measure propagation
	refutation  refutation  // beacons that show that this node lives (G21)

	// Chores.

	reaper    reaper        // leftovers of an owner's former life
	sweepAt   time.Duration // when the chores of each second are due
	sweptNet  int           // which of nets.order the next sweep begins with
	publishAt time.Duration // when views that were held back are published; 0: none is
}

// NewCore returns a core that owns store from now on. rng is the core's alone;
// the same seed and the same inputs give the same outputs (G10).
func NewCore(cfg CoreConfig, rng *rand.Rand, store *state.Store) *Core {
	cfg.setDefaults()
	c := &Core{env: &env{cfg: cfg, rng: rng, store: store}}
	c.wire()
	c.nets.add("", store.Global())
	for _, t := range store.Tables()[1:] {
		c.nets.add(t.Network(), t)
	}
	c.pace.roundAt = time.Duration(rng.Int64N(int64(cfg.RepairIdle)))
	for _, p := range cfg.Peers {
		store.SetLiveness(p, state.Alive)
	}
	return c
}

// wire makes the parts and gives each what it needs of the others. A part knows
// those below it; what it needs of one above it, it states as an interface.
func (c *Core) wire() {
	e, r, o, n := c.env, &c.roster, &c.outbox, &c.nets
	c.roster = newRoster(e)
	c.outbox = outbox{env: e, roster: r, budgets: newAnswerBudgets()}
	c.nets = nets{
		env: e, byName: map[string]*network{}, byHash: map[uint64]*network{}, parted: map[string]bool{}, hashOf: networkHash,
	}
	c.wireLiveness()
	c.pace = pace{env: e}
	c.push = newPush(e, r, o, n, &c.pace)
	c.pull = newPull(e, o, n)
	c.incarnation = incarnation{env: e, outbox: o, nets: n, push: &c.push}
	c.reaper = reaper{env: e, due: map[state.NodeID]time.Duration{}}
	c.probes = probes{env: e, roster: r, outbox: o, liveness: &c.liveness}
	c.fetch = fetch{env: e, roster: r, outbox: o, nets: n, probes: &c.probes}
	c.repair = repair{
		env: e, roster: r, outbox: o, nets: n, pace: &c.pace, probes: &c.probes, fetch: &c.fetch, reaper: &c.reaper,
		news: &c.push, pull: &c.pull, own: &c.incarnation,
	}
	c.claims = claims{env: e, roster: r, outbox: o, nets: n, push: &c.push, provisionals: map[*network]struct{}{}}
	c.duplicates = duplicates{env: e, outbox: o, nets: n, incarnation: &c.incarnation, own: c}
	c.beacons = beacons{env: e, roster: r, outbox: o}
	c.refutation = refutation{env: e, roster: r, outbox: o}
	c.intake = intake{
		env: e, roster: r, outbox: o, nets: n, goodbyes: &c.goodbyes, liveness: &c.liveness, push: &c.push,
		pull: &c.pull, fetch: &c.fetch, incarnation: &c.incarnation, reaper: &c.reaper, refutation: &c.refutation,
	}
}

// wireLiveness makes the parts that watch the other nodes.
func (c *Core) wireLiveness() {
	e, r, o := c.env, &c.roster, &c.outbox
	c.pings = pings{env: e, roster: r, outbox: o}
	c.goodbyes = goodbyes{
		env: e, roster: r, outbox: o, pings: &c.pings, members: &c.liveness, checks: map[state.NodeID]*goodbyeCheck{},
	}
	c.liveness = liveness{env: e, roster: r, outbox: o, pings: &c.pings, goodbyes: &c.goodbyes, tables: &c.fetch}
	c.checks = checks{
		env: e, roster: r, outbox: o, pings: &c.pings, goodbyes: &c.goodbyes, liveness: &c.liveness,
		refutation: &c.refutation, joinPings: map[netip.AddrPort]joinPing{},
	}
}

// Store returns the node's store. Only the caller of the core may read it,
// between steps; its views are safe for others.
func (c *Core) Store() *state.Store { return c.store }

// Config returns the configuration with its defaults filled in.
func (c *Core) Config() CoreConfig { return c.cfg }

// Drain returns the packets and events since the last call. The slices are the
// caller's.
func (c *Core) Drain() ([]Send, []Event) {
	s, e := c.outbox.sends, c.outbox.events
	c.outbox.sends, c.outbox.events, c.outbox.sendBytes = nil, nil, 0
	return s, e
}

// Receive handles a packet whose origin is not known: it came over a stream.
func (c *Core) Receive(now time.Duration, data []byte) { c.ReceiveFrom(now, netip.AddrPort{}, data) }

// ReceiveFrom handles a datagram that came from an address. With the zero
// AddrPort the origin is not known, or the packet was no datagram.
func (c *Core) ReceiveFrom(now time.Duration, at netip.AddrPort, data []byte) {
	c.advance(now)
	c.packetFrom = at
	defer func() { c.packetFrom = netip.AddrPort{} }()
	c.Stats.BytesIn += uint64(len(data))
	if len(data) > maxPacket {
		c.Stats.Oversized++
		return
	}
	h, rest, err := decodeHead(data)
	if err != nil {
		c.Stats.Malformed++
		return
	}
	if h.from == c.cfg.Self {
		c.duplicates.receiveFromSelf(h.boot, rest)
		return
	}
	c.liveness.heardFrom(h.from, h.boot)
	c.outbox.beginPacket(h.from, at.Addr())
	defer c.outbox.endPacket()
	for len(rest) > 0 {
		var typ byte
		var p []byte
		if typ, p, rest, err = nextFrame(rest); err != nil {
			c.Stats.Malformed++
			return
		}
		c.Stats.In[typ%frameKinds] += uint64(len(p))
		if !c.outbox.mayRead(typ) {
			c.Stats.FramesDropped++
			continue
		}
		if err := c.dispatch(h.from, typ, p); err != nil {
			c.Stats.Malformed++
			if !errors.Is(err, errWire) {
				c.outbox.reportRefusal(h.from, err)
			}
		}
	}
	c.finishStep()
}

// dispatch hands a frame to the part that it is for. An error of errWire means
// that the frame is malformed, any other that its content was refused.
func (c *Core) dispatch(from state.NodeID, typ byte, p []byte) error {
	switch typ {
	case framePush, frameDelta:
		return c.intake.onDeltas(from, typ, p)
	case frameProbe, frameEqual, frameProbe32, frameEqual32:
		return c.repair.onProbe(from, typ, p)
	case frameSummary:
		return c.repair.onSummary(from, p)
	case frameHeads, frameHot:
		return c.repair.onHeads(from, typ, p)
	case frameMore:
		return c.repair.onMore(from, p)
	case frameWants:
		return c.repair.onWants(from, p)
	case framePing, frameAck, frameAsk, frameHeard:
		return c.checks.onPing(from, typ, p)
	case frameCall, frameReply:
		return c.onCall(from, typ, p)
	}
	c.Stats.UnknownFrames++
	return nil
}

// Tick does what is due. The caller calls it at or after the time that Next
// returned.
func (c *Core) Tick(now time.Duration) {
	c.advance(now)
	c.checks.run()
	c.goodbyes.run()
	c.pings.pingOneDead()
	c.incarnation.startDue()
	c.pull.retry()
	c.push.sendHot()
	if c.now >= c.pace.roundAt {
		c.repair.round()
	}
	if c.now >= c.sweepAt {
		c.sweep()
	}
	c.claims.run()
	c.beacons.write()
	c.finishStep()
}

// Next returns when Tick is due.
func (c *Core) Next() time.Duration {
	next := min(c.pace.roundAt, c.sweepAt)
	if c.push.queue.at > 0 {
		next = min(next, c.push.queue.at)
	}
	if len(c.push.hotTimes) > 0 {
		next = min(next, c.push.hotTimes[0])
	}
	if c.publishAt > 0 {
		next = min(next, c.publishAt)
	}
	if c.incarnation.next.due > 0 {
		next = min(next, c.incarnation.next.due)
	}
	if c.beacons.at > 0 {
		next = min(next, c.beacons.at)
	}
	next = min(next, c.claims.due.next(), c.goodbyes.due.next())
	if len(c.pull.pulls) > 0 {
		next = min(next, c.pull.due)
	}
	return min(next, c.pings.next())
}

// finishStep ends every step: claims follow the tables, views follow both, and
// what was queued for the end of the step leaves.
func (c *Core) finishStep() {
	for _, t := range c.store.TakeClaims() {
		if n := c.nets.byName[t.Network()]; n != nil && n.carrier != nil {
			c.claims.carrySoon(n)
		}
	}
	c.publishAt = 0
	if again := c.store.Publish(c.now); again > 0 {
		c.publishAt = c.now + again
	}
	c.push.announce()
	c.fetch.flush()
	c.push.flush()
}

// sweep does the chores of each second.
func (c *Core) sweep() {
	c.sweepAt = c.now + time.Second
	c.liveness.sweep()
	c.pings.pingWhenDeaf()
	c.outbox.sweepBudgets()
	c.reaper.run()
	c.duplicates.watchDuplicate()
	c.claims.reviseProvisional()
	c.sweepTombstones()
}

// recoverStep brings the core back to a sound state after a step that panicked half
// way, and returns how many streams have to be asked for again.
func (c *Core) recoverStep(now time.Duration) (streams int) {
	c.advance(now)
	c.roster.log.forget()
	clear(c.push.hints)
	c.outbox.endPacket()
	c.pace.roundAt = c.now
	for _, t := range c.store.Tables() {
		streams += t.Verify()
	}
	return streams
}
