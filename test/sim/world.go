package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/cespare/xxhash/v2"

	"meshd/gossip"
	"meshd/state"
)

// Options describe a World. The zero value of a field means its default.
type Options struct {
	// The mesh.

	Seed      uint64            // of all random choices
	Nodes     int               // how many nodes there are
	Link      Link              // the default link; the zero Link means LAN
	Bandwidth float64           // of a node's network card, in bytes per second; 0: 1 Gbit/s
	Network   string            // the network that all nodes join at their start; "" means "net"
	Pool      netip.Prefix      // VIP pool of the network; the zero Prefix: it is not defined
	Core      gossip.CoreConfig // of every node; Self, Addr, Boot and ExpectPeers are filled in
	Limits    state.Limits      // of every node's tables; the zero Limits: state.DefaultLimits

	// Their membership.

	Oracle  Oracle // reports deaths, true ones and others
	Static  bool   // all nodes are known to all and never change (CoreConfig.Peers)
	Script  bool   // the membership says nothing but what the test does, see World.Introduce
	StandIn bool   // what is sent to a node that does not exist goes to node k mod Nodes, k from its name n0000

	// The test.

	OnStep  func(n *Node)                 // called after every step of a node; or nil
	OnEvent func(n *Node, e gossip.Event) // called for every event that a core reports; or nil
}

// World is a simulated mesh. It belongs to one goroutine.
type World struct {
	opt Options // with defaults filled in

	// Time.

	now    time.Duration // virtual, from the start
	q      queue         // what happens when
	seq    uint64        // orders what happens at one moment
	events uint64        // that have happened
	trace  xxhash.Digest // of all of them

	// The nodes and their network.

	rng     *rand.Rand               // of delays and losses
	perByte float64                  // nanoseconds that a byte takes on a network card
	nodes   []*Node                  // in the order of their numbers
	byAddr  map[netip.AddrPort]int32 // their numbers
	byID    map[state.NodeID]int32   // likewise
	links   map[pair]*Link           // by the numbers of two nodes; where there is none, opt.Link
	cuts    map[pair]Cut             // links that carry nothing at present
	peers   []state.NodeID           // all nodes, if opt.Static
	oracle  oracle                   // the membership
}

// New returns a world whose nodes are not started.
func New(opt Options) *World {
	if opt.Link == (Link{}) {
		opt.Link = LAN()
	}
	if opt.Bandwidth == 0 {
		opt.Bandwidth = 125e6
	}
	if opt.Network == "" {
		opt.Network = "net"
	}
	if opt.Limits == (state.Limits{}) {
		opt.Limits = state.DefaultLimits()
	}
	w := &World{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0)), perByte: 1e9 / opt.Bandwidth,
		byAddr: map[netip.AddrPort]int32{}, byID: map[state.NodeID]int32{}, links: map[pair]*Link{}, cuts: map[pair]Cut{},
	}
	w.trace.Reset()
	for i := range opt.Nodes {
		w.add(state.NodeID(fmt.Sprintf("n%04d", i)))
	}
	w.oracle.init(w, opt.Oracle)
	return w
}

// add makes a node that is not started.
func (w *World) add(id state.NodeID) *Node {
	i := len(w.nodes)
	n := &Node{
		ID: id, world: w, index: int32(i), disk: newDisk(),
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 7946),
	}
	w.nodes = append(w.nodes, n)
	w.byAddr[n.Addr] = n.index
	if _, taken := w.byID[id]; !taken {
		w.byID[id] = n.index
		w.peers = append(w.peers, id)
	}
	return n
}

// Now returns the virtual time since the world began.
func (w *World) Now() time.Duration { return w.now }

// Node returns the node with that number.
func (w *World) Node(i int) *Node { return w.nodes[i] }

// Nodes returns all nodes, by number. The slice is the world's.
func (w *World) Nodes() []*Node { return w.nodes }

// Rand returns the world's source of chance, for scripts that are part of the run.
func (w *World) Rand() *rand.Rand { return w.rng }

// Events returns how many events were handled.
func (w *World) Events() uint64 { return w.events }

// Trace returns a hash of everything that happened: equal seeds and scripts
// give equal traces.
func (w *World) Trace() uint64 { return w.trace.Sum64() }

// Start starts every node, each a moment after the one before, and tells them
// of each other.
func (w *World) Start(apart time.Duration) {
	for _, n := range w.nodes {
		n.Start()
		w.Run(apart)
	}
}

// At runs f at a moment of virtual time.
func (w *World) At(at time.Duration, f func()) {
	w.schedule(event{at: max(at, w.now), kind: evCall, fn: f})
}

// After runs f after d.
func (w *World) After(d time.Duration, f func()) { w.At(w.now+d, f) }

func (w *World) schedule(e event) {
	w.seq++
	e.seq = w.seq
	w.q.push(e)
}

// Run handles what happens in the next d.
func (w *World) Run(d time.Duration) {
	until := w.now + d
	for len(w.q) > 0 && w.q[0].at <= until {
		w.handle(w.q.pop())
	}
	w.now = until
}

// Until runs until done returns true, asked every step of time, or for d. It
// returns how long that took and whether done did.
func (w *World) Until(done func() bool, step, d time.Duration) (time.Duration, bool) {
	start := w.now
	for w.now-start <= d {
		if done() {
			return w.now - start, true
		}
		w.Run(step)
	}
	return d, false
}

func (w *World) handle(e event) {
	w.now = e.at
	w.events++
	if e.kind == evCall {
		e.fn()
		return
	}
	n := w.nodes[e.node]
	switch {
	case e.kind == evTick:
		if n.up && e.life == n.life && e.at == n.tickAt {
			n.tick()
		}
		return
	case !n.up, e.kind == evStream && (e.life != n.life || e.sent != w.nodes[e.from].life):
		return
	case w.cuts[pair{e.from, e.node}]&CutStreams != 0 && e.kind == evStream:
		return // the connection broke on its way
	}
	w.record(e)
	n.receive(e)
}

func (w *World) record(e event) {
	var b [32]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(e.at))
	binary.LittleEndian.PutUint32(b[8:], uint32(e.node))
	binary.LittleEndian.PutUint32(b[12:], uint32(e.from))
	binary.LittleEndian.PutUint64(b[16:], uint64(e.kind))
	binary.LittleEndian.PutUint64(b[24:], xxhash.Sum64(e.data))
	_, _ = w.trace.Write(b[:])
}

// standIn returns who answers for a node that does not exist: never the sender.
func (w *World) standIn(from *Node, id state.NodeID) int32 {
	k := int32(0)
	for _, c := range id[1:] {
		k = k*10 + c - '0'
	}
	if k %= int32(len(w.nodes)); k == from.index {
		k = (k + 1) % int32(len(w.nodes))
	}
	return k
}

// route puts what a core sends on the wire.
func (w *World) route(from *Node, s gossip.Send) {
	to, ok := w.byID[s.To]
	if s.Addr.IsValid() {
		to, ok = w.byAddr[s.Addr]
	}
	if !ok && w.opt.StandIn {
		to, ok = w.standIn(from, s.To), true
	}
	if !ok {
		return
	}
	if from.OnSend != nil && !from.OnSend(&s) {
		return
	}
	from.Bytes += uint64(len(s.Data) + overhead)
	if s.Reliable {
		w.stream(from, to, s.Data)
		return
	}
	w.datagram(from, to, s.Data)
}
