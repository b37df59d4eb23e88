package main

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/state"
	"meshd/test/sim"
)

// wide measures what many networks cost: a mesh in which every node takes part
// in every network, with one task, one claim and one carried definition in
// each. Four whole cores with whole tables stand for all nodes: what is sent to
// node k goes to core k mod 4. Membership is real, memberlist's own traffic is
// not in it. A fifth core joins; its processor time is counted as time, so that
// what it does not keep up with waits.
func wide(o options) {
	for _, c := range []struct{ nodes, networks int }{{100, 20}, {300, 50}, {1000, 100}} {
		if o.wants("nodes=%d networks=%d", c.nodes, c.networks) && !(o.quick && c.nodes > 300) {
			newWideMesh(o, c.nodes, c.networks).measure()
		}
	}
}

// wideMesh is a few whole cores among many names.
type wideMesh struct {
	o        options
	names    []state.NodeID
	networks []string
	cores    []*wideCore // the stand-ins, then the one that joins
	joiner   *wideCore   // nil before the join
	q        wideQueue
	now      time.Duration
	seq      int
}

type wideCore struct {
	*gossip.Core
	name  state.NodeID  // its own
	began time.Duration // in the mesh's time: its own clock starts at 0
	tick  time.Duration // when its Tick is on its way, in the mesh's time
	used  time.Duration // processor time, of the joiner only
	free  time.Duration // when the joiner's processor is free
	inbox [][]byte      // what waits for it
	woken bool          // an event at free is on its way

	bytesOut, bytesIn uint64 // of packets
	peak              int    // most bytes sent in one step
	packets           int    // most packets sent in one step
}

type wideEvent struct {
	at   time.Duration
	seq  int
	to   *wideCore
	data []byte // nil: a tick
}

const (
	wideStandIns = 4
	wideServices = 10 // per network
	wideDelay    = 400 * time.Microsecond
	widePerByte  = 8 * time.Nanosecond // 1 Gbit/s
)

func newWideMesh(o options, nodes, networks int) *wideMesh {
	m := &wideMesh{o: o}
	for i := range nodes {
		m.names = append(m.names, state.NodeID(fmt.Sprintf("n%04d", i)))
	}
	for i := range networks {
		m.networks = append(m.networks, fmt.Sprintf("net%03d", i))
	}
	for i := range wideStandIns {
		m.cores = append(m.cores, m.newCore(m.names[i], i))
	}
	for i, name := range m.names {
		m.fill(i, name)
	}
	for _, c := range m.cores {
		for _, other := range m.names {
			c.MemberAlive(0, other, m.addr(other))
		}
	}
	for _, c := range m.cores {
		m.carryOut(c)
	}
	return m
}

func (m *wideMesh) newCore(name state.NodeID, seed int) *wideCore {
	store := state.NewStore(name, 1, state.DefaultLimits(), new(clock))
	rng := rand.New(rand.NewPCG(m.o.seed, uint64(seed)))
	c := gossip.NewCore(gossip.CoreConfig{Self: name, Boot: uint64(seed) + 1, Addr: m.addr(name), ExpectPeers: true}, rng,
		store)
	return &wideCore{Core: c, name: name, began: m.now, tick: -1}
}

func (m *wideMesh) addr(name state.NodeID) netip.AddrPort {
	i, _ := slices.BinarySearch(m.names, name)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 7946)
}

// globals is what node i says in the global scope, locals what it says in a network.
func (m *wideMesh) globals(name state.NodeID) []state.Change {
	cs := []state.Change{{
		Kind: state.KindNode,
		Body: string(state.AppendNode(nil, state.NodeInfo{Boot: 1, Addr: m.addr(name), Version: "1.0", LB: "nft"})),
	}}
	for i, n := range m.networks {
		d := state.NetworkDef{
			Name: n, Subnet4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16),
			Birth: uint64(i + 1),
		}
		cs = append(cs, state.Change{Kind: state.KindMember, Key: n},
			state.Change{
				Kind: state.KindNetwork, Key: n,
				Body: string(state.AppendNetwork(nil, state.NetworkClaim{NetworkDef: d})),
			})
	}
	return cs
}

func (m *wideMesh) locals(i, network int) []state.Change {
	s := i % wideServices
	claim := state.VIPClaim{VIP4: netip.AddrFrom4([4]byte{10, byte(network), 1, byte(s)}), Birth: uint64(s + 1)}
	return []state.Change{
		sim.Endpoint(fmt.Sprintf("n%04d-%s", i, m.networks[network]), fmt.Sprintf("s%d", s), i),
		{Kind: state.KindVIP, Key: fmt.Sprintf("s%d", s), Body: string(state.AppendVIPClaim(nil, claim))},
	}
}

// fill gives every stand-in what node i says.
func (m *wideMesh) fill(i int, name state.NodeID) {
	if i < wideStandIns {
		m.state(m.cores[i], i)
	}
	src := state.NewStore(name, 1, state.DefaultLimits(), new(clock))
	m.mustCommit(src.Global(), m.globals(name))
	deltas := []*state.Delta{src.Global().Delta(state.Want{Owner: name}, 1<<30)}
	for k, n := range m.networks {
		t := src.Join(n)
		m.mustCommit(t, m.locals(i, k))
		deltas = append(deltas, t.Delta(state.Want{Owner: name}, 1<<30))
	}
	for _, c := range m.cores {
		for _, d := range deltas {
			if _, err := c.Store().Apply(d); err != nil && c.name != name {
				panic(err)
			}
		}
	}
}

func (m *wideMesh) mustCommit(t *state.Table, cs []state.Change) {
	if _, err := t.Commit(cs); err != nil {
		panic(err)
	}
}

// state makes a core say what its node says, as a daemon does at its start.
func (m *wideMesh) state(c *wideCore, i int) {
	now := m.now - c.began
	must(c.Commit(now, "", m.globals(c.name)))
	for k, n := range m.networks {
		must(c.JoinNetwork(now, n))
		c.Host(n, fmt.Sprintf("s%d", i%wideServices), state.Hosting{Tasks: 1})
		must(c.Commit(now, n, m.locals(i, k)))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// carryOut puts what a core wants on the wire.
func (m *wideMesh) carryOut(c *wideCore) {
	sends, _ := c.Drain()
	bytes := 0
	for _, s := range sends {
		to := m.target(c, s.To)
		size := len(s.Data) + 34
		bytes += size
		c.bytesOut += uint64(size)
		to.bytesIn += uint64(size)
		m.push(wideEvent{at: m.now + wideDelay + time.Duration(bytes)*widePerByte, to: to, data: s.Data})
	}
	c.peak, c.packets = max(c.peak, bytes), max(c.packets, len(sends))
	if at := max(c.Next()+c.began, m.now); c.tick < 0 || at < c.tick {
		c.tick = at
		m.push(wideEvent{at: at, to: c})
	}
}

// target returns the core that answers for a node: never the sender.
func (m *wideMesh) target(from *wideCore, id state.NodeID) *wideCore {
	if m.joiner != nil && id == m.joiner.name {
		return m.joiner
	}
	i, _ := slices.BinarySearch(m.names, id)
	c := m.cores[i%wideStandIns]
	if c == from {
		c = m.cores[(i+1)%wideStandIns]
	}
	return c
}

func (m *wideMesh) push(e wideEvent) {
	m.seq++
	e.seq = m.seq
	heap.Push(&m.q, e)
}

// run handles what happens until a moment, or until done.
func (m *wideMesh) run(until time.Duration, done func() bool) bool {
	for len(m.q) > 0 && m.q[0].at <= until {
		e := heap.Pop(&m.q).(wideEvent)
		m.now = e.at
		m.step(e)
		if done != nil && done() {
			return true
		}
	}
	m.now = until
	return false
}

func (m *wideMesh) step(e wideEvent) {
	c := e.to
	if c != m.joiner {
		if e.data != nil {
			c.Receive(m.now-c.began, e.data)
		} else if c.tick == e.at {
			c.tick = -1
			c.Tick(m.now - c.began)
		}
		m.carryOut(c)
		return
	}
	if e.data != nil {
		c.inbox = append(c.inbox, e.data)
	}
	if c.free <= m.now {
		m.work(c)
	}
	if busy := len(c.inbox) > 0 || c.tick >= 0 && c.tick <= m.now; busy && !c.woken {
		c.woken = true
		m.push(wideEvent{at: c.free, to: c})
	}
}

// work does one thing that waits for the joiner's processor, and counts its time.
func (m *wideMesh) work(c *wideCore) {
	c.woken = false
	begin := cpuTime()
	switch {
	case c.tick >= 0 && c.tick <= m.now:
		c.tick = -1
		c.Tick(m.now - c.began)
	case len(c.inbox) > 0:
		data := c.inbox[0]
		c.inbox = c.inbox[1:]
		c.Receive(m.now-c.began, data)
	default:
		return
	}
	d := cpuTime() - begin
	c.used += d
	c.free = m.now + max(d, time.Microsecond)
	m.carryOut(c)
}

func (m *wideMesh) measure() {
	m.run(15*time.Second, nil)
	const rest = time.Minute
	worst := time.Duration(0)
	cpu := cpuTime()
	for range rest / time.Second {
		m.run(m.now+time.Second, nil)
		for _, n := range m.networks {
			worst = max(worst, m.cores[0].Compared(n))
		}
	}
	idle := float64(cpuTime()-cpu) / float64(time.Millisecond) / rest.Seconds() / wideStandIns
	j := m.join()
	equal := m.run(m.now+time.Minute, m.equal)
	took := m.now - j.began
	fmt.Printf("wide nodes=%d networks=%d idle_core_ms_per_s=%.2f join_core_ms=%.0f join_bytes=%d worst_compare_s=%.1f "+
		"join_s=%.2f join_burst_packets=%d join_burst_bytes=%d join_sent_bytes=%d reconcile_ms=%s equal=%v "+
		"model=%d-whole-cores\n",
		len(m.names), len(m.networks), idle, float64(j.used)/float64(time.Millisecond), j.bytesIn+j.bytesOut, worst.Seconds(),
		took.Seconds(), j.packets, j.peak, j.bytesOut, ms(m.reconcile()), equal, wideStandIns)
}

// reconcile returns the processor time that it takes a node to bring its
// definitions of networks up to date when one of them changed, on average. It
// comes last: it states things.
func (m *wideMesh) reconcile() time.Duration {
	const times = 100
	store := m.cores[0].Store()
	used := time.Duration(0)
	for k := range times {
		d := state.NetworkDef{
			Name:    m.networks[k%len(m.networks)],
			Subnet4: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + k%16)}), 16), Birth: uint64(k + 1),
		}
		body := string(state.AppendNetwork(nil, state.NetworkClaim{NetworkDef: d, Pinned: true}))
		m.mustCommit(store.Global(), []state.Change{{Kind: state.KindNetwork, Key: d.Name, Body: body}})
		begin := cpuTime()
		store.Defs()
		used += cpuTime() - begin
	}
	return used / times
}

// join starts one more node, which knows nothing but its own tasks.
func (m *wideMesh) join() *wideCore {
	i := len(m.names)
	name := state.NodeID(fmt.Sprintf("n%04d", i))
	m.names = append(m.names, name)
	j := m.newCore(name, i)
	m.joiner = j
	begin := cpuTime()
	m.state(j, i)
	for _, other := range m.names[:i] {
		j.MemberAlive(0, other, m.addr(other))
	}
	j.used = cpuTime() - begin
	for _, c := range m.cores {
		c.MemberAlive(m.now-c.began, name, m.addr(name))
		m.carryOut(c)
	}
	m.carryOut(j)
	return j
}

// equal reports whether the joiner's tables are those of the others; asked
// often, it looks at one table first.
func (m *wideMesh) equal() bool {
	for _, c := range m.cores {
		for _, n := range append([]string{""}, m.networks...) {
			if c.Store().Table(n).Hash() != m.joiner.Store().Table(n).Hash() {
				return false
			}
		}
	}
	return true
}

// wideQueue is a heap of events by time.
type wideQueue []wideEvent

func (q wideQueue) Len() int { return len(q) }
func (q wideQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q wideQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *wideQueue) Push(e any)   { *q = append(*q, e.(wideEvent)) }
func (q *wideQueue) Pop() any {
	e := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return e
}
