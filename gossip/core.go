package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// Send is a packet to put on the wire.
type Send struct {
	To       state.NodeID
	Addr     netip.AddrPort // where, if the membership may not know; else the zero value
	Reliable bool           // over a stream; else a datagram
	Data     []byte
}

// Core is the replication protocol of one node as a deterministic state
// machine (G10): time, packets and membership go in; packets and events come
// out of Drain. It owns the node's state.Store. Not safe for concurrent use.
type Core struct {
	cfg   CoreConfig
	rng   *rand.Rand
	store *state.Store
	now   time.Duration

	detector

	targets  map[string][]state.NodeID // cache: living participants per network
	networks map[string]*network       // by name, "" is the global scope
	parted   map[string]bool           // networks left in this life
	order    []string                  // their names, sorted
	byHash   map[uint64]*network
	hashOf   func(name string) uint64 // networkHash, but in tests

	queue         pushQueue
	pulls         map[streamKey]*pull
	pullsPerPeer  map[state.NodeID]int // how many of them are at a peer
	pullsDue      time.Duration        // no pull is due before
	rtt           time.Duration        // of small pulls, smoothed
	comparisons   []comparison
	askQueue      []*network
	drawn         *draw
	repairAt      time.Duration
	busyUntil     time.Duration
	firstCompared int  // which of order is compared first in the next round
	preferProven  bool // of the comparisons, see partner
	hotTimes      []time.Duration
	sweepAt       time.Duration
	publishAt     time.Duration // 0: nothing held back
	reapTimes     map[state.NodeID]time.Duration
	other         duplicate
	yielded       bool
	next          nextIncarnation
	leftAt        time.Duration // when this node left in order; 0: it has not
	beaconAt      time.Duration

	packetFrom netip.AddrPort // of the datagram that is being handled; the zero AddrPort: not known

	lastHeard time.Duration // last packet that can have been a datagram, from anybody
	newcomers int           // how many are under check, see unproven
	joinPings map[netip.AddrPort]joinPing

	answers   answerBudgets
	hints     map[string][]hint // news that the packet at hand brought, to be announced
	sends     []Send
	sendBytes int
	events    []Event
	Stats     Stats
}

// network is what the core keeps per table.
type network struct {
	name            string
	hash            uint64 // of the name, see networkHash
	table           *state.Table
	carrier         *state.Carrier // nil for the global scope
	pushed          uint64         // own version up to which peers were told
	hot             []hotHead      // recent news, newest last
	carryAt         time.Duration  // 0: not by time
	carryNotBefore  time.Duration  // until then claims of others do not make it look at its own again
	joinedAt        time.Duration
	versionTimes    []versionTime // own versions by time, for S6
	reportedFailure string        // which services have no address, as it was last told
	compared        bool          // compared with another node in this life, see meet

	probedAt       time.Duration // when its hash was last sent to a peer
	livingCount    int           // how many of its participants lived at countedAt, see livingIn
	livingCountAt  time.Duration
	askQueued      bool           // to be asked for at the end of the step
	appeared       []state.NodeID // who came since it was last asked for: asked first
	askedCount     int            // how many peers since askFrom
	askSince       time.Duration
	provenAppeared bool          // somebody showed that it is there since it is sought
	answerDue      time.Duration // when those who were asked should have answered
	fetchPeer      state.NodeID  // who sends the whole of it
	fetchUntil     time.Duration
	moreComing     bool // and has not yet said that this was all

	agreements    [maxAgreements]agreement // that differ in nothing that is to be done, oldest overwritten
	nextAgreement int                      // the next place there

	equalAt, differedAt time.Duration // when it last compared equal and unequal with a peer's
}

type hotHead struct {
	owner state.NodeID
	at    time.Duration
}

type versionTime struct {
	at      time.Duration
	version uint64
}

type streamKey struct {
	network string
	owner   state.NodeID
}

// NewCore returns a core that owns store. rng is the core's alone.
func NewCore(cfg CoreConfig, rng *rand.Rand, store *state.Store) *Core {
	cfg.setDefaults()
	c := &Core{
		cfg: cfg, rng: rng, store: store, targets: map[string][]state.NodeID{},
		networks: map[string]*network{}, parted: map[string]bool{}, byHash: map[uint64]*network{}, hashOf: networkHash,
		pulls: map[streamKey]*pull{},
		detector: detector{
			members: map[state.NodeID]*member{}, pinging: map[state.NodeID]*member{},
			goodbyeChecks: map[state.NodeID]*goodbyeCheck{},
		}, reapTimes: map[state.NodeID]time.Duration{}, rtt: cfg.WantTimeout / 8,
		answers:   answerBudgets{peers: map[state.NodeID]*peerBudget{}, byAddress: map[netip.Addr]*bucket{}},
		joinPings: map[netip.AddrPort]joinPing{}, hints: map[string][]hint{}, pullsPerPeer: map[state.NodeID]int{},
	}
	c.addNetwork("", store.Global())
	for _, t := range store.Tables()[1:] {
		c.addNetwork(t.Network(), t)
	}
	c.repairAt = time.Duration(rng.Int64N(int64(cfg.RepairIdle)))
	for _, p := range cfg.Peers {
		store.SetLiveness(p, state.Alive)
	}
	return c
}

// Store returns the store, to be read by whoever runs the core.
func (c *Core) Store() *state.Store { return c.store }

// Config returns the effective configuration.
func (c *Core) Config() CoreConfig { return c.cfg }

// ErrNameTaken is wrapped by errors about a network whose name cannot be told
// from another's on the wire.
var ErrNameTaken = errors.New("the name is not usable on this node")

// Drain returns what is to be sent and told since the last call. The slices
// are the caller's.
func (c *Core) Drain() ([]Send, []Event) {
	s, e := c.sends, c.events
	c.sends, c.events, c.sendBytes = nil, nil, 0
	return s, e
}

// advance moves the core's clock; time never goes backwards for it.
func (c *Core) advance(now time.Duration) { c.now = max(c.now, now) }

// Receive handles a packet of which it is not known where it came from.
func (c *Core) Receive(now time.Duration, data []byte) { c.ReceiveFrom(now, netip.AddrPort{}, data) }

// ReceiveFrom handles a datagram that came from an address; the zero AddrPort: it is
// not known from which, or the packet was none.
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
		c.receiveFromSelf(h.boot, rest)
		return
	}
	c.heardFrom(h.from, h.boot)
	c.beginPacket(h.from, at.Addr())
	defer c.endPacket()
	for len(rest) > 0 {
		var typ byte
		var p []byte
		if typ, p, rest, err = nextFrame(rest); err != nil {
			c.Stats.Malformed++
			return
		}
		c.Stats.In[typ%frameKinds] += uint64(len(p))
		if !c.mayRead(typ) {
			c.Stats.FramesDropped++
			continue
		}
		if err := c.dispatch(h.from, typ, p); err != nil {
			c.Stats.Malformed++
			if !errors.Is(err, errWire) {
				c.reportRefusal(h.from, err)
			}
		}
	}
	c.finishStep()
}

func (c *Core) reportRefusal(from state.NodeID, err error) {
	c.Stats.Refused++
	leftOut, ok := c.mayReport(from)
	if !ok {
		return
	}
	reason := err.Error()
	if leftOut > 0 {
		reason = fmt.Sprintf("%s (and %d times more since it was last told)", reason, leftOut)
	}
	c.emit(Event{Kind: EventRefused, Node: from, Reason: reason})
}

func (c *Core) dispatch(from state.NodeID, typ byte, p []byte) error {
	switch typ {
	case framePush, frameDelta:
		return c.onDeltas(from, typ, p)
	case frameProbe, frameEqual, frameProbe32, frameEqual32:
		return c.onProbe(from, typ, p)
	case frameSummary:
		return c.onSummary(from, p)
	case frameHeads, frameHot:
		return c.onHeads(from, typ, p)
	case frameMore:
		return c.onMore(from, p)
	case frameWants:
		return c.onWants(from, p)
	case framePing, frameAck, frameAsk, frameHeard:
		return c.onPing(from, typ, p)
	case frameCall, frameReply:
		return c.onCall(from, typ, p)
	}
	c.Stats.UnknownFrames++
	return nil
}

// Tick does what is due. Call it at or after the time that Next returned.
func (c *Core) Tick(now time.Duration) {
	c.advance(now)
	c.runChecks()
	c.runGoodbyeChecks()
	c.pingOneDead()
	c.startIncarnation()
	c.retryPulls()
	c.sendHot()
	if c.now >= c.repairAt {
		c.repairRound()
	}
	if c.now >= c.sweepAt {
		c.sweep()
	}
	for _, name := range c.order {
		if n := c.networks[name]; n.carryAt > 0 && c.now >= n.carryAt {
			c.carry(n)
		}
	}
	c.beacon()
	c.finishStep()
}

// Next returns when Tick is due.
func (c *Core) Next() time.Duration {
	next := min(c.repairAt, c.sweepAt)
	if c.queue.at > 0 {
		next = min(next, c.queue.at)
	}
	if len(c.hotTimes) > 0 {
		next = min(next, c.hotTimes[0])
	}
	if c.publishAt > 0 {
		next = min(next, c.publishAt)
	}
	if c.next.due > 0 {
		next = min(next, c.next.due)
	}
	if c.beaconAt > 0 {
		next = min(next, c.beaconAt)
	}
	for _, n := range c.networks {
		if n.carryAt > 0 {
			next = min(next, n.carryAt)
		}
	}
	if len(c.pulls) > 0 {
		next = min(next, c.pullsDue)
	}
	for _, p := range c.goodbyeChecks {
		next = min(next, p.next)
	}
	return min(next, c.nextPing())
}

// finishStep ends every step: claims follow the table, views follow both, and
// pushes leave.
func (c *Core) finishStep() {
	for _, name := range c.order {
		if n := c.networks[name]; n.table.TakeClaims() && n.carrier != nil {
			c.carrySoon(n)
		}
	}
	c.publishAt = 0
	if again := c.store.Publish(c.now); again > 0 {
		c.publishAt = c.now + again
	}
	c.announce()
	c.sendComparisons()
	c.flushPushes()
}

// sweep does the slow chores, once a second.
func (c *Core) sweep() {
	c.sweepAt = c.now + time.Second
	c.sweepMembers()
	c.pingWhenDeaf()
	c.sweepBudgets()
	c.reap()
	c.watchDuplicate()
	c.reviseProvisional()
	for _, name := range c.order {
		c.forgetTombstones(c.networks[name])
	}
}

// forgetTombstones raises the floor of the own stream by age (S6).
func (c *Core) forgetTombstones(n *network) {
	h, ok := n.table.Head(c.cfg.Self)
	if !ok {
		return
	}
	if len(n.versionTimes) == 0 || n.versionTimes[len(n.versionTimes)-1].version < h.Version {
		n.versionTimes = append(n.versionTimes, versionTime{c.now, h.Version})
	}
	old := uint64(0)
	for len(n.versionTimes) > 1 && c.now-n.versionTimes[0].at > c.cfg.TombstoneAge {
		old, n.versionTimes = n.versionTimes[0].version, n.versionTimes[1:]
	}
	if len(n.versionTimes) == 1 && c.now-n.versionTimes[0].at > c.cfg.TombstoneAge {
		old = n.versionTimes[0].version
	}
	if len(n.versionTimes) > 1024 { // bounded: thin out
		n.versionTimes = slices.Delete(n.versionTimes, 1, 512)
	}
	if old > 0 && n.table.Forget(old) {
		c.noteNews(n, c.cfg.Self)
	}
}

// newPacket starts a packet of ours.
func (c *Core) newPacket() *encoder { return newEncoder(c.cfg.Self, c.cfg.Boot) }

// send queues a packet; what does not fit a datagram goes over a stream (G5).
// If it answers a packet, it is one of the few that this packet may cause.
func (c *Core) send(to state.NodeID, e *encoder) {
	if c.afford(len(e.b)) {
		c.sendUnmetered(to, e)
	}
}

// sendUnmetered is send for what has a budget of its own.
func (c *Core) sendUnmetered(to state.NodeID, e *encoder) {
	s := Send{To: to, Data: e.b, Reliable: len(e.b) > c.cfg.Datagram}
	if m := c.members[to]; m != nil {
		s.Reliable = s.Reliable || c.now < m.streamUntil
		if m.phase != phaseAlive {
			s.Addr = m.addr
		}
	}
	c.enqueueSend(s)
}

// sendTo queues a datagram to an address that the membership need not know.
func (c *Core) sendTo(to state.NodeID, addr netip.AddrPort, e *encoder) {
	if c.afford(len(e.b)) {
		c.enqueueSend(Send{To: to, Addr: addr, Data: e.b})
	}
}
