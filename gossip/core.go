package gossip

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

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
	WantTimeout time.Duration // a pull that is not answered by then is tried elsewhere

	VerifyFor time.Duration // how long a reported death is checked before hiding (S9)
	D1        time.Duration // dead for that long: no longer offered (S9)
	D2        time.Duration // dead for that long: dropped, head kept; at least 2·D1
	Graves    time.Duration // how long a dropped head is kept
	Preserve  float64       // share of members whose vanishing keeps them served (S12)
	Window    time.Duration // within this time
	MinMesh   int           // in meshes of at least that many others

	TombstoneAge time.Duration // S6
	Grace        time.Duration // V5: how long a service keeps its old address in a move
	Reservation  time.Duration // V2: how long the claim of a service without tasks is kept
	Quarantine   time.Duration // V5: before a freed address goes to another service
	BeaconEvery  time.Duration // one beacon of the whole mesh in that time; 0: none

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
	def(&c.HotAfter, 8*time.Millisecond)
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

// Send is a packet to put on the wire.
type Send struct {
	To       state.NodeID
	Addr     netip.AddrPort // where, if the membership may not know; else the zero value
	Reliable bool           // over a stream; else a datagram
	Data     []byte
}

// Event is something that the layer above wants to know.
type Event struct {
	Kind   EventKind
	Node   state.NodeID
	Addr   netip.AddrPort
	Call   Call
	Stamp  time.Duration // of EventBeacon: the sender's wall clock
	Reason string
}

// EventKind tells events apart.
type EventKind uint8

// The events of a Core.
const (
	EventAlive       EventKind = iota + 1 // an owner is served again
	EventSuspect                          // its death is being checked
	EventDead                             // its endpoints are hidden
	EventLeft                             // it left in order
	EventRejoin                           // the membership should join Addr: a node it lost answers
	EventDuplicate                        // another live node has our name; Reason says who yields
	EventBeacon                           // Stamp arrived from Node
	EventCall                             // a request of a peer's host
	EventReply                            // the answer to one of ours
	EventRefused                          // a peer's delta was refused: Reason
	EventReincarnate                      // our incarnation is now higher: persist it
	EventPreserve                         // self-preservation went on or off (S12)
	EventExhausted                        // a service got no VIP (V7)
)

// Call is a request or an answer between the hosts of two nodes.
type Call struct {
	ID   uint64
	Op   string
	Body []byte
}

// Core is the replication protocol of one node as a deterministic state
// machine (G10): time, packets and membership go in; packets and events come
// out of Drain. It owns the node's state.Store. Not safe for concurrent use.
type Core struct {
	cfg   CoreConfig
	rng   *rand.Rand
	store *state.Store
	now   time.Duration

	members  map[state.NodeID]*member
	targets  map[string][]state.NodeID // cache: living participants per network
	networks map[string]*network       // by name, "" is the global scope
	parted   map[string]bool           // networks left in this life
	order    []string                  // their names, sorted
	byHash   map[uint32]*network

	push     pushQueue
	pulls    map[streamKey]*pull
	repairAt time.Duration
	busyTill time.Duration
	turn     int // whose turn it is among order
	hotAt    []time.Duration
	sweepAt  time.Duration
	pubAt    time.Duration // 0: nothing held back
	preserve preservation
	dup      duplicate
	beaconAt time.Duration

	sends  []Send
	events []Event
	Stats  Stats
}

// network is what the core keeps per table.
type network struct {
	name    string
	hash    uint32
	table   *state.Table
	carrier *state.Carrier // nil for the global scope
	pushed  uint64         // own version up to which peers were told
	hot     []hotHead      // recent news, newest last
	carryAt time.Duration  // 0: not by time
	joined  time.Duration
	marks   []mark // own versions by time, for S6
	greeted bool   // asked a peer for its table

	equal, differed time.Duration // when it last compared equal and unequal with a peer's
}

type hotHead struct {
	owner state.NodeID
	at    time.Duration
}

type mark struct {
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
		cfg: cfg, rng: rng, store: store, members: map[state.NodeID]*member{}, targets: map[string][]state.NodeID{},
		networks: map[string]*network{}, parted: map[string]bool{}, byHash: map[uint32]*network{}, pulls: map[streamKey]*pull{},
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

func networkHash(name string) uint32 { return uint32(xxhash.Sum64String(name)) }

func (c *Core) addNetwork(name string, t *state.Table) *network {
	n := &network{name: name, hash: networkHash(name), table: t, joined: c.now}
	if name != "" {
		n.carrier = state.NewCarrier(c.cfg.Grace, c.cfg.Quarantine)
	}
	if c.cfg.Peers == nil {
		t.Open()
	}
	c.networks[name] = n
	c.byHash[n.hash] = n
	i, _ := slices.BinarySearch(c.order, name)
	c.order = slices.Insert(c.order, i, name)
	return n
}

func (c *Core) dropNetwork(name string) {
	n := c.networks[name]
	if n == nil {
		return
	}
	delete(c.networks, name)
	delete(c.byHash, n.hash)
	i, _ := slices.BinarySearch(c.order, name)
	c.order = slices.Delete(c.order, i, i+1)
	for k := range c.pulls {
		if k.network == name {
			delete(c.pulls, k)
		}
	}
}

// Drain returns what is to be sent and told since the last call. The slices
// are the caller's.
func (c *Core) Drain() ([]Send, []Event) {
	s, e := c.sends, c.events
	c.sends, c.events = nil, nil
	return s, e
}

func (c *Core) event(e Event) { c.events = append(c.events, e) }

// advance moves the core's clock; time never goes backwards for it.
func (c *Core) advance(now time.Duration) { c.now = max(c.now, now) }

// Receive handles a packet.
func (c *Core) Receive(now time.Duration, data []byte) {
	c.advance(now)
	c.Stats.BytesIn += uint64(len(data))
	h, rest, err := decodeHead(data)
	if err != nil {
		c.Stats.Malformed++
		return
	}
	if h.from == c.cfg.Self {
		c.meetSelf(h.boot, rest)
		return
	}
	c.heardFrom(h.from, h.boot)
	for len(rest) > 0 {
		var typ byte
		var p []byte
		if typ, p, rest, err = nextFrame(rest); err != nil {
			c.Stats.Malformed++
			return
		}
		if err := c.frame(h.from, typ, p); err != nil {
			c.Stats.Malformed++
			if !errors.Is(err, errWire) {
				c.refused(h.from, err)
			}
		}
	}
	c.settle()
}

func (c *Core) refused(from state.NodeID, err error) {
	c.Stats.Refused++
	c.event(Event{Kind: EventRefused, Node: from, Reason: err.Error()})
}

func (c *Core) frame(from state.NodeID, typ byte, p []byte) error {
	switch typ {
	case framePush, frameDelta:
		return c.onDeltas(from, typ, p)
	case frameProbe, frameEqual:
		return c.onProbe(from, typ, p)
	case frameSummary:
		return c.onSummary(from, p)
	case frameHeads, frameHot:
		return c.onHeads(from, typ, p)
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
	c.checkMembers()
	c.retryPulls()
	c.sayHot()
	if c.now >= c.repairAt {
		c.repair()
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
	c.settle()
}

// Next returns when Tick is due.
func (c *Core) Next() time.Duration {
	next := min(c.repairAt, c.sweepAt)
	if c.push.at > 0 {
		next = min(next, c.push.at)
	}
	if len(c.hotAt) > 0 {
		next = min(next, c.hotAt[0])
	}
	if c.pubAt > 0 {
		next = min(next, c.pubAt)
	}
	if c.beaconAt > 0 {
		next = min(next, c.beaconAt)
	}
	for _, n := range c.networks {
		if n.carryAt > 0 {
			next = min(next, n.carryAt)
		}
	}
	for _, p := range c.pulls {
		next = min(next, p.deadline)
	}
	return min(next, c.nextCheck())
}

// settle ends every step: claims follow the table, views follow both, and
// pushes leave.
func (c *Core) settle() {
	for _, name := range c.order {
		if n := c.networks[name]; n.table.TakeClaims() && n.carrier != nil {
			c.carry(n)
		}
	}
	c.pubAt = 0
	if again := c.store.Publish(c.now); again > 0 {
		c.pubAt = c.now + again
	}
	c.flush()
}

// sweep does the slow chores, once a second.
func (c *Core) sweep() {
	c.sweepAt = c.now + time.Second
	c.sweepMembers()
	c.unyield()
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
	if len(n.marks) == 0 || n.marks[len(n.marks)-1].version < h.Version {
		n.marks = append(n.marks, mark{c.now, h.Version})
	}
	old := uint64(0)
	for len(n.marks) > 1 && c.now-n.marks[0].at > c.cfg.TombstoneAge {
		old, n.marks = n.marks[0].version, n.marks[1:]
	}
	if len(n.marks) == 1 && c.now-n.marks[0].at > c.cfg.TombstoneAge {
		old = n.marks[0].version
	}
	if len(n.marks) > 1024 { // bounded: thin out
		n.marks = slices.Delete(n.marks, 1, 512)
	}
	if old > 0 && n.table.Forget(old) {
		c.news(n, c.cfg.Self)
	}
}

// packet starts a packet of ours.
func (c *Core) packet() *encoder { return newEncoder(c.cfg.Self, c.cfg.Boot) }

// send queues a packet; what does not fit a datagram goes over a stream (G5).
func (c *Core) send(to state.NodeID, e *encoder) {
	s := Send{To: to, Data: e.b, Reliable: len(e.b) > c.cfg.Datagram}
	if m := c.members[to]; m != nil && m.phase != phaseAlive {
		s.Addr = m.addr
	}
	c.Stats.BytesOut += uint64(len(e.b))
	if s.Reliable {
		c.Stats.StreamsOut++
	} else {
		c.Stats.DatagramsOut++
	}
	c.sends = append(c.sends, s)
}

// pick returns up to k random members of from without those in not, in random order.
func (c *Core) pick(from []state.NodeID, k int, not ...state.NodeID) []state.NodeID {
	out := make([]state.NodeID, 0, k)
	n := len(from)
	if n <= 2*k+len(not) {
		for _, i := range c.rng.Perm(n) {
			if p := from[i]; len(out) < k && p != c.cfg.Self && !slices.Contains(not, p) {
				out = append(out, p)
			}
		}
		return out
	}
	for tries := 0; len(out) < k && tries < 8*k; tries++ {
		p := from[c.rng.IntN(n)]
		if p != c.cfg.Self && !slices.Contains(not, p) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// living returns the participants of a network that are thought to live.
func (c *Core) living(name string) []state.NodeID {
	if c.cfg.Peers != nil {
		return c.cfg.Peers
	}
	if ts, ok := c.targets[name]; ok {
		return ts
	}
	var ts []state.NodeID
	if name == "" {
		for id, m := range c.members {
			if m.phase == phaseAlive || m.phase == phaseVerify {
				ts = append(ts, id)
			}
		}
		slices.Sort(ts)
	} else {
		for _, id := range c.store.Participants(name) {
			if m := c.members[id]; m != nil && (m.phase == phaseAlive || m.phase == phaseVerify) {
				ts = append(ts, id)
			}
		}
	}
	c.targets[name] = ts
	return ts
}
