package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// Node is one simulated host: a core and what surrounds it.
type Node struct {
	// What a test looks at.

	ID   state.NodeID   // n0000, n0001, …
	Addr netip.AddrPort // where others reach it
	Core *gossip.Core   // nil while down
	// Bytes counts what the node sent, with 34 bytes per packet for IP, UDP and framing.
	Bytes uint64
	// OnSend, if set, may change or (returning false) swallow what the node sends.
	OnSend func(s *gossip.Send) bool

	// What it is.

	world *World        // to which it belongs
	index int32         // its number
	skew  time.Duration // its monotonic clock against the world's
	disk  *disk         // survives a crash

	// Its present life.

	up     bool          // it runs
	life   uint32        // how often it started or ended
	tickAt time.Duration // when its core's Tick is scheduled, on the world's clock; -1: it is not
	wire   time.Duration // when its network card is free

	// A pause, as by SIGSTOP.

	paused   bool                                // it is stopped
	held     []event                             // arrived while paused
	heldB    int                                 // bytes of them
	heldNews []func(time.Duration, *gossip.Core) // of the membership
}

// disk is what survives a crash.
type disk struct {
	inc    uint64
	stated map[string]map[string]state.Change // network → key → what the node states
}

func newDisk() *disk { return &disk{stated: map[string]map[string]state.Change{}} }

func (d *disk) clone() *disk {
	c := &disk{inc: d.inc, stated: map[string]map[string]state.Change{}}
	for n, cs := range d.stated {
		c.stated[n] = map[string]state.Change{}
		maps.Copy(c.stated[n], cs)
	}
	return c
}

// changes returns what is stated in a network, in a fixed order.
func (d *disk) changes(network string) []state.Change {
	var cs []state.Change
	for _, k := range slices.Sorted(maps.Keys(d.stated[network])) {
		cs = append(cs, d.stated[network][k])
	}
	return cs
}

// Number returns the node's place among World.Nodes.
func (n *Node) Number() int { return int(n.index) }

// Up reports whether the node runs.
func (n *Node) Up() bool { return n.up }

// Paused reports whether the node is stopped, as by SIGSTOP.
func (n *Node) Paused() bool { return n.paused }

// Store returns the node's store.
func (n *Node) Store() *state.Store { return n.Core.Store() }

// Table returns the node's table of a network.
func (n *Node) Table(network string) *state.Table { return n.Core.Store().Table(network) }

func (n *Node) now() time.Duration { return n.world.now + n.skew }

// lamport is the clock of S8.
type lamport uint64

func (l *lamport) Tick() uint64     { *l++; return uint64(*l) }
func (l *lamport) Time() uint64     { return uint64(*l) }
func (l *lamport) Witness(t uint64) { *l = max(*l, lamport(t)) }

// Start starts the node with what its disk says.
func (n *Node) Start() {
	w := n.world
	n.life++
	n.up, n.paused, n.held, n.heldB, n.heldNews = true, false, nil, 0, nil
	n.skew = -w.now // its clock starts at 0
	n.disk.inc++
	store := state.NewStore(n.ID, n.disk.inc, w.opt.Limits, new(lamport))
	cfg := w.opt.Core
	cfg.Self, cfg.Addr, cfg.Boot = n.ID, n.Addr, uint64(w.now)+uint64(n.index)+1
	cfg.ExpectPeers = len(w.nodes) > 1
	if w.opt.Static {
		if cfg.Peers == nil {
			cfg.Peers = w.peers
		}
		store.Join(w.opt.Network)
	}
	rng := rand.New(rand.NewPCG(w.opt.Seed^uint64(n.index)<<20, uint64(n.life)))
	n.Core = gossip.NewCore(cfg, rng, store)
	n.tickAt = -1
	if !w.opt.Static {
		n.boot()
		w.oracle.started(n)
	}
	n.carryOut()
}

// boot says what a host says first.
func (n *Node) boot() {
	info := state.NodeInfo{Boot: n.Core.Config().Boot, Addr: n.Addr, Refutes: true}
	n.must(n.Core.Commit(n.now(), "", []state.Change{{Kind: state.KindNode, Body: string(state.AppendNode(nil, info))}}))
	n.define()
	n.must(n.Core.Commit(n.now(), "", n.disk.changes("")))
	if n.disk.stated[n.world.opt.Network] == nil {
		n.disk.stated[n.world.opt.Network] = map[string]state.Change{}
	}
	for _, name := range slices.Sorted(maps.Keys(n.disk.stated)) {
		if name != "" {
			n.must(n.Core.JoinNetwork(n.now(), name))
			n.hostSome(name, nil)
			n.must(n.Core.Commit(n.now(), name, n.disk.changes(name)))
		}
	}
}

// define carries the definition of the default network (V6).
func (n *Node) define() {
	if p := n.world.opt.Pool; p.IsValid() {
		d := state.NetworkClaim{NetworkDef: state.NetworkDef{Name: n.world.opt.Network, Subnet4: p, Birth: 1}}
		c := state.Change{Kind: state.KindNetwork, Key: d.Name, Body: string(state.AppendNetwork(nil, d))}
		n.must(n.Core.Commit(n.now(), "", []state.Change{c}))
	}
}

// Take makes the node take part in a network, or end that (G6).
func (n *Node) Take(network string, join bool) {
	if join {
		n.disk.stated[network] = map[string]state.Change{}
		n.must(n.Core.JoinNetwork(n.now(), network))
	} else {
		delete(n.disk.stated, network)
		n.must(n.Core.LeaveNetwork(n.now(), network))
	}
	n.carryOut()
}

// hostSome tells the core how many tasks of some services, or of all, the node
// has (V2).
func (n *Node) hostSome(network string, services map[string]bool) {
	tasks := map[string]int{}
	for _, c := range n.disk.stated[network] {
		if c.Kind == state.KindEndpoint {
			tasks[c.Group]++
		}
	}
	if services == nil {
		for s := range tasks {
			n.Core.Host(network, s, state.Hosting{Tasks: tasks[s]})
		}
	}
	for _, s := range slices.Sorted(maps.Keys(services)) {
		if s != "" {
			n.Core.Host(network, s, state.Hosting{Tasks: tasks[s]})
		}
	}
}

func (n *Node) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("node %s: %v", n.ID, err))
	}
}

// Commit states changes in the default network and remembers them on disk.
func (n *Node) Commit(changes ...state.Change) error {
	return n.CommitIn(n.world.opt.Network, changes...)
}

// CommitIn states changes in a network and remembers them on disk.
func (n *Node) CommitIn(network string, changes ...state.Change) error {
	if n.disk.stated[network] == nil {
		n.disk.stated[network] = map[string]state.Change{}
	}
	touched := map[string]bool{}
	for _, c := range changes {
		key := string([]byte{byte(c.Kind)}) + c.Key
		if c.Kind == state.KindEndpoint {
			touched[c.Group] = true
			touched[n.disk.stated[network][key].Group] = true
		}
		if c.Delete {
			delete(n.disk.stated[network], key)
			continue
		}
		n.disk.stated[network][key] = c
	}
	if !n.world.opt.Static {
		n.hostSome(network, touched)
	}
	err := n.Core.Commit(n.now(), network, changes)
	n.carryOut()
	return err
}

// Do runs f on the node's core and puts what follows on the wire.
func (n *Node) Do(f func(now time.Duration, c *gossip.Core)) {
	if n.up {
		f(n.now(), n.Core)
		n.carryOut()
	}
}

// Crash ends the node's process. Without disk, it forgets what it was.
func (n *Node) Crash(keepDisk bool) {
	n.saveClaims()
	n.up, n.paused, n.Core, n.held, n.heldNews = false, false, nil, nil, nil
	n.life++
	if !keepDisk {
		n.disk = newDisk()
	}
	n.world.oracle.changed()
}

// saveClaims puts the claims that the node carries on its disk, as a daemon
// does: the only carrier of a claim must not forget it in a restart (V2).
func (n *Node) saveClaims() {
	if !n.up {
		return
	}
	for network, stated := range n.disk.stated {
		t := n.Table(network)
		if network == "" || t == nil {
			continue
		}
		for _, k := range []state.Kind{state.KindVIP, state.KindSettings} {
			for key, ch := range stated {
				if ch.Kind == k {
					delete(stated, key)
				}
			}
			for _, e := range t.Own(k) {
				stated[string([]byte{byte(k)})+e.Key()] = state.Change{Kind: k, Key: e.Key(), Body: e.Body()}
			}
		}
	}
}

// Leave makes the node leave in order and end.
func (n *Node) Leave() {
	n.Do(func(now time.Duration, c *gossip.Core) { c.Leave(now) })
	n.world.oracle.left(n)
	n.world.After(50*time.Millisecond, func() { n.Crash(true) })
}

// Pause stops the node as SIGSTOP does: packets wait, timers come late.
func (n *Node) Pause() {
	n.paused = true
	n.world.oracle.changed()
}

// Resume ends a pause.
func (n *Node) Resume() {
	if !n.up || !n.paused {
		return
	}
	n.paused = false
	n.world.oracle.changed()
	held, news := n.held, n.heldNews
	n.held, n.heldB, n.heldNews = nil, 0, nil
	for _, f := range news {
		n.Do(f)
	}
	for _, e := range held {
		n.receive(e)
	}
	n.tick()
}

// Jump moves the node's clock forward, as a suspended machine sees it.
func (n *Node) Jump(d time.Duration) { n.skew += d; n.schedule(n.world.now) }

// socketBuffer bounds what waits for a paused node in datagrams.
const socketBuffer = 208 << 10

func (n *Node) receive(e event) {
	if n.paused {
		if e.kind == evPacket {
			if n.heldB += len(e.data); n.heldB > socketBuffer {
				return
			}
		}
		n.held = append(n.held, e)
		return
	}
	n.Core.Receive(n.now(), e.data)
	n.carryOut()
}

func (n *Node) tick() {
	n.tickAt = -1
	if n.paused {
		return
	}
	n.Core.Tick(n.now())
	n.carryOut()
}

// carryOut does what the core wants after a step.
func (n *Node) carryOut() {
	sends, events := n.Core.Drain()
	for _, s := range sends {
		n.world.route(n, s)
	}
	for _, e := range events {
		n.happened(e)
	}
	if !n.up {
		return
	}
	n.schedule(max(n.Core.Next()-n.skew, n.world.now))
	if n.world.opt.OnStep != nil {
		n.world.opt.OnStep(n)
	}
}

// schedule makes the node tick at a moment, if it would not before.
func (n *Node) schedule(at time.Duration) {
	if n.tickAt >= 0 && n.tickAt <= at {
		return
	}
	n.tickAt = at
	n.world.schedule(event{at: at, kind: evTick, node: n.index, life: n.life})
}

// beacon writes the beacon that the core asks for.
func (n *Node) beacon() {
	body := string(state.AppendBeacon(nil, n.world.now+time.Hour))
	n.must(n.Core.Commit(n.now(), "", []state.Change{{Kind: state.KindBeacon, Body: body}}))
	n.carryOut()
}

func (n *Node) happened(e gossip.Event) {
	switch e.Kind {
	case gossip.EventReincarnate:
		n.disk.inc = max(n.disk.inc, n.Core.Store().Incarnation())
	case gossip.EventRejoin:
		n.world.oracle.rejoin(n, e.Addr)
	case gossip.EventBeacon:
		if e.Node == n.ID && !n.Core.Yielded() {
			n.beacon()
		}
	}
	if n.world.opt.OnEvent != nil {
		n.world.opt.OnEvent(n, e)
	}
}
