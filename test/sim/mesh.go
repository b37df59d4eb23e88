package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// MeshOptions describe a Mesh. The zero value of a field means its default.
type MeshOptions struct {
	// The mesh.

	Seed    uint64            // of all random choices
	Nodes   int               // how many machines there are
	Seeds   int               // how many of the first nodes the others join through; default 3
	Apart   time.Duration     // between the starts of two nodes, on average; default 7 ms
	Link    Link              // between any two; the zero Link means LAN
	Pool    netip.Prefix      // of the network; default 10.96.0.0/16
	Profile string            // gossip.HostConfig.Profile
	Keys    [][]byte          // gossip.HostConfig.Keys
	Core    gossip.CoreConfig // of every node

	// The test.

	Log *slog.Logger // of all hosts
	// OnEvent takes what hosts report, from their goroutines, in place of Mesh.Events; or nil.
	OnEvent func(e MeshEvent)
	// WaitIdle waits until every goroutine of the bubble is blocked: synctest.Wait.
	WaitIdle func()
}

// Mesh is a number of whole nodes, gossip.Host with memberlist inside, on a
// Net, in a testing/synctest bubble. It belongs to the bubble's first
// goroutine, which reads cores only while all others are blocked.
type Mesh struct {
	// What a test looks at.

	Net    *Net        // on which the machines are
	Check  *Checker    // of their tables
	mu     sync.Mutex  // guards Events
	Events []MeshEvent // of all hosts, oldest first

	// What it runs.

	opt   MeshOptions        // with defaults filled in
	w     *World             // holds the nodes for the checker; it is never stepped
	rng   *rand.Rand         // seeded by opt.Seed
	all   []*Machine         // in the order of their numbers
	start time.Time          // on the bubble's clock
	stop  context.CancelFunc // ends the network
	wg    sync.WaitGroup     // of what stop ends
}

// MeshEvent is what a node's host reported.
type MeshEvent struct {
	At   time.Duration
	Node state.NodeID // who says it
	gossip.Event

	by *Machine
}

// Machine is one host of a Mesh.
type Machine struct {
	// What a test looks at.

	*Node              // its core, for the checker and to look at
	Host  *gossip.Host // of its present life
	Port  *Port        // its place on the network
	Boot  uint64       // its boot id, which has the wall clock in it; 0: as the bubble's clock says

	// What it is, over all its lives.

	mesh    *Mesh         // to which it belongs
	slot    int           // its number
	keys    [][]byte      // of its keyring
	life    int           // how often it started
	peers   []gossip.Peer // as on disk
	lamport uint64        // as on disk
	past    spent         // by its former lives

	// The end of its present life.

	cancel   context.CancelFunc // ends Host.Run
	finished chan error         // gets what Run returned
}

// savePeers is its HostConfig.SavePeers.
func (c *Machine) savePeers(_ []gossip.PeerChange, all func() []gossip.Peer) error {
	c.peers = all()
	return nil
}

// NewMesh returns a mesh whose nodes are not started.
func NewMesh(opt MeshOptions) *Mesh {
	if opt.Link == (Link{}) {
		opt.Link = LAN()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	def(&opt.Seeds, 3)
	def(&opt.Apart, 7*time.Millisecond)
	def(&opt.Pool, netip.MustParsePrefix("10.96.0.0/16"))
	m := &Mesh{
		opt: opt, w: New(Options{Seed: opt.Seed, Nodes: opt.Nodes, Pool: opt.Pool}), Check: NewChecker(),
		Net: NewNet(opt.Seed, opt.Link), rng: rand.New(rand.NewPCG(opt.Seed, 3)), start: time.Now(),
	}
	m.Check.Watch(m.w)
	for i, n := range m.w.nodes {
		m.all = append(m.all, &Machine{Node: n, mesh: m, slot: i, keys: opt.Keys})
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.wg.Go(func() { m.Net.Run(ctx) })
	return m
}

// Add makes one more machine, not started, with a name that may be taken.
func (m *Mesh) Add(id state.NodeID) *Machine {
	c := &Machine{Node: m.w.add(id), mesh: m, slot: len(m.all), keys: m.opt.Keys}
	m.all = append(m.all, c)
	return c
}

// Machine returns the machine with that number.
func (m *Mesh) Machine(i int) *Machine { return m.all[i] }

// Start starts every machine, each a moment after the one before.
func (m *Mesh) Start() error {
	for _, c := range m.all {
		if err := c.Start(); err != nil {
			return err
		}
		m.Run(m.opt.Apart/2 + time.Duration(m.rng.Int64N(int64(m.opt.Apart))))
	}
	return nil
}

// Close ends all machines and the network, and lets the timers end that
// memberlist leaves behind.
func (m *Mesh) Close() error {
	var first error
	for _, c := range m.all {
		if c.up {
			if err := c.end(); err != nil && first == nil {
				first = err
			}
		}
	}
	m.Run(time.Minute)
	m.stop()
	m.wg.Wait()
	return first
}

// Now returns the virtual time since the mesh was made.
func (m *Mesh) Now() time.Duration { return time.Since(m.start) }

// Run lets virtual time pass.
func (m *Mesh) Run(d time.Duration) {
	wait(d)
	m.waitIdle()
}

// wait blocks for d of the bubble's time.
func wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	<-t.C
}

func (m *Mesh) waitIdle() {
	m.opt.WaitIdle()
	m.w.now = m.Now()
}

// Until runs until done returns true, asked every step, or for d. It returns
// how long that took and whether done did.
func (m *Mesh) Until(done func() bool, step, d time.Duration) (time.Duration, bool) {
	start := m.Now()
	for m.Now()-start <= d {
		if m.waitIdle(); done() {
			return m.Now() - start, true
		}
		m.Run(step)
	}
	return d, false
}

// Equal reports whether all running nodes hold equal tables.
func (m *Mesh) Equal() bool { return m.w.Equal() }

// Whole reports whether all running nodes hold equal tables, and each takes
// all others for alive.
func (m *Mesh) Whole() bool {
	for _, c := range m.all {
		for _, o := range m.all {
			if c != o && c.up && o.up && c.Store().Liveness(o.ID) != state.Alive {
				return false
			}
		}
	}
	return m.Equal()
}

// Listed returns how many pairs of running nodes miss each other in
// memberlist's own view.
func (m *Mesh) Listed() (missing int) {
	for _, c := range m.all {
		if !c.up {
			continue
		}
		lists := map[string]bool{}
		for _, n := range c.Host.Membership() {
			lists[n] = true
		}
		for _, o := range m.all {
			if o.up && !lists[string(o.ID)] {
				missing++
			}
		}
	}
	return missing
}

// Start starts the machine with what its disk says.
func (c *Machine) Start() error {
	m, n := c.mesh, c.Node
	c.life++
	n.life++
	n.disk.inc++
	c.Port = m.Net.Open(c.slot, n.Addr)
	core := m.opt.Core
	core.Boot = c.Boot
	h, err := gossip.NewHost(gossip.HostConfig{
		Core: core, Self: n.ID, Bind: n.Addr, Advertise: n.Addr.Addr(), Profile: m.opt.Profile,
		Join: m.seeds(c), Peers: c.peers, Keys: c.keys, Incarnation: n.disk.inc, Lamport: c.lamport,
		SavePeers: c.savePeers, Transport: c.Port,
		Seed: m.opt.Seed<<32 | uint64(c.slot)<<8 | uint64(c.life) + 1, OnEvent: c.report,
		Log: m.opt.Log.With("host", string(n.ID)),
	})
	if err != nil {
		return err
	}
	c.Host = h
	m.w.now = m.Now()
	h.Prepare(func(core *gossip.Core, _ time.Duration) {
		n.Core, n.skew, n.up, n.paused = core, -m.w.now, true, false
		n.boot()
	})
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel, c.finished = cancel, make(chan error, 1)
	go func() { c.finished <- h.Run(ctx) }()
	return nil
}

// seeds are the addresses that a machine joins through.
func (m *Mesh) seeds(c *Machine) []string {
	var as []string
	for i := range min(m.opt.Seeds, len(m.all)) {
		if i != c.slot {
			as = append(as, m.all[i].Addr.String())
		}
	}
	return as
}

// report notes an event, from the host's goroutine.
func (c *Machine) report(e gossip.Event) {
	c.mesh.mu.Lock()
	defer c.mesh.mu.Unlock()
	if e.Kind == gossip.EventReincarnate {
		c.disk.inc = max(c.disk.inc, c.Core.Store().Incarnation())
	}
	if f := c.mesh.opt.OnEvent; f != nil {
		f(MeshEvent{c.mesh.Now(), c.ID, e, c})
	} else {
		c.mesh.Events = append(c.mesh.Events, MeshEvent{c.mesh.Now(), c.ID, e, c})
	}
}

// Commit states changes in the default network and remembers them on disk.
func (c *Machine) Commit(changes ...state.Change) error {
	n := c.Node
	touched := n.remember(changes)
	var err error
	doErr := c.Host.Do(context.Background(), func(core *gossip.Core, now time.Duration) {
		n.hostSome(c.mesh.w.opt.Network, touched)
		err = core.Commit(now, c.mesh.w.opt.Network, changes)
	})
	if doErr != nil {
		return doErr
	}
	return err
}

// remember puts changes on the disk and returns the services they touch.
func (n *Node) remember(changes []state.Change) map[string]bool {
	disk, touched := n.disk.stated[n.world.opt.Network], map[string]bool{}
	for _, ch := range changes {
		key := string([]byte{byte(ch.Kind)}) + ch.Key
		if ch.Kind == state.KindEndpoint {
			touched[ch.Group], touched[disk[key].Group] = true, true
		}
		if ch.Delete {
			delete(disk, key)
		} else {
			disk[key] = ch
		}
	}
	return touched
}

// end stops the machine's process and waits until all its goroutines ended.
func (c *Machine) end() error {
	c.cancel()
	err := <-c.finished
	c.mesh.waitIdle()
	c.past.add(c.Node.Core, c.Host)
	c.lamport = c.Host.Lamport()
	c.Node.saveClaims()
	c.up, c.Node.Core = false, nil
	return err
}

// Crash ends the process at once; with power, the whole host, so that nothing
// answers in its place. Without disk, it forgets what it was.
func (c *Machine) Crash(power, disk bool) error {
	if power {
		c.Port.Vanish()
	}
	err := c.end()
	if !disk {
		c.disk, c.peers, c.lamport = newDisk(), nil, 0
	}
	return err
}

// Leave makes the node leave in order and end.
func (c *Machine) Leave() error {
	if err := c.Host.Leave(context.Background()); err != nil {
		return fmt.Errorf("leave %s: %w", c.ID, err)
	}
	return c.end()
}

// Move gives the machine another address for its next start.
func (c *Machine) Move(addr netip.AddrPort) { c.Addr = addr }

// Partition cuts every link between machines whose group differs.
func (m *Mesh) Partition(group func(i int) int) {
	for i := range m.all {
		for j := range m.all {
			if group(i) != group(j) {
				m.Net.Cut(i, j, CutAll)
			}
		}
	}
}
