package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"meshd/gossip"
	"meshd/state"
	"meshd/test/sim"
)

// members measures what it costs one node that others are there, come and go:
// processor time of a whole core that knows all of them, and the bytes that it sends.
// The others are names with streams and no cores, but where two nodes compare their
// tables. A line's figures are of one operation, as its comment says; those of less
// than a few milliseconds are the least of several runs, since other work on the
// machine can only add to them.
func members(o options) {
	sizes, networks := []int{1000, 10_000, 100_000}, []int{1, 100, 1000}
	if o.quick {
		sizes, networks = sizes[:1], networks[:2]
	}
	for _, n := range sizes {
		memberCosts(o, n)
	}
	for _, m := range networks {
		networkCosts(o, m)
	}
}

// wideMembers is how many nodes the lines about many networks have.
const wideMembers = 100

// crowd is one core among the names of others.
type crowd struct {
	*gossip.Core
	rng   *rand.Rand
	now   time.Duration
	names []state.NodeID // of the others, sorted
	sent  int            // bytes
	dead  int            // members that were hidden
}

// newCrowd returns a core that takes part in networks and knows nobody yet.
func newCrowd(o options, nodes, networks int) *crowd {
	return newCrowdOf(o, nodes, networks, "self")
}

func newCrowdOf(o options, nodes, networks int, self state.NodeID) *crowd {
	c := &crowd{rng: rand.New(rand.NewPCG(o.seed, uint64(nodes))), now: time.Second}
	store := state.NewStore(self, 1, state.DefaultLimits(), new(clock))
	c.Core = gossip.NewCore(gossip.CoreConfig{
		Self: self, Boot: 1, Addr: crowdAddr(nodes), Probing: 200 * time.Millisecond,
		Silence: 1800 * time.Millisecond, Suspicion: 600 * time.Millisecond,
	}, rand.New(rand.NewPCG(o.seed, 1)), store)
	for i := range nodes {
		c.names = append(c.names, state.NodeID(fmt.Sprintf("n%06d", i)))
	}
	for k := range networks {
		must(c.JoinNetwork(c.now, networkName(k)))
	}
	c.drain()
	return c
}

func networkName(k int) string { return fmt.Sprintf("net%04d", k) }

// crowdAddr is where node i is.
func crowdAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 7946)
}

// drain takes what the last step sent and asks when the next one is due, as a host
// does after every step.
func (c *crowd) drain() []gossip.Send {
	sends, events := c.Drain()
	for _, s := range sends {
		c.sent += len(s.Data)
	}
	for _, e := range events {
		if e.Kind == gossip.EventDead {
			c.dead++
		}
	}
	c.Next()
	return sends
}

// list has the membership list member i.
func (c *crowd) list(i int) {
	c.MemberAlive(c.now, c.names[i], crowdAddr(i))
	c.drain()
}

// reach has member i answer a probe of the membership.
func (c *crowd) reach(i int) {
	c.MemberReached(c.now, c.names[i], crowdAddr(i))
	c.drain()
}

// run does what is due until a moment; each is called after every step.
func (c *crowd) run(until time.Duration, each func()) {
	for c.Next() <= until {
		c.now = max(c.now, c.Next())
		c.Tick(c.now)
		c.drain()
		if each != nil {
			each()
		}
	}
	c.now = until
}

// statements is what node i states: itself, in the global scope, and an endpoint in
// each of some networks.
func (c *crowd) statements(i int, networks ...string) (*state.Store, []*state.Delta) {
	name := c.names[i]
	src := state.NewStore(name, 1, state.DefaultLimits(), new(clock))
	changes := []state.Change{{
		Kind: state.KindNode,
		Body: string(state.AppendNode(nil, state.NodeInfo{Boot: 1, Addr: crowdAddr(i), Version: "1.0", LB: "nft"})),
	}}
	for _, n := range networks {
		changes = append(changes, state.Change{Kind: state.KindMember, Key: n})
	}
	commitTo(src.Global(), changes)
	ds := []*state.Delta{src.Global().Delta(state.Want{Owner: name}, 1<<30)}
	for _, n := range networks {
		t := src.Join(n)
		commitTo(t, []state.Change{sim.Endpoint(fmt.Sprintf("%s-%s", name, n), "web", i)})
		ds = append(ds, t.Delta(state.Want{Owner: name}, 1<<30))
	}
	return src, ds
}

func commitTo(t *state.Table, cs []state.Change) {
	if _, err := t.Commit(cs); err != nil {
		panic(err)
	}
}

// apply merges deltas into the core's tables.
func (c *crowd) apply(ds []*state.Delta) {
	for _, d := range ds {
		if _, err := c.Store().Apply(d); err != nil {
			panic(err)
		}
	}
}

// populate makes the core know all the others: it has their streams, they are listed
// and have answered. networks says in which networks node i takes part.
func (c *crowd) populate(networks func(i int) []string) {
	for i := range c.names {
		_, ds := c.statements(i, networks(i)...)
		c.apply(ds)
	}
	for i := range c.names {
		c.list(i)
		c.reach(i)
	}
	for _, t := range c.Store().Tables() {
		t.SetSynced()
	}
	c.run(c.now+5*time.Second, c.alive)
}

// alive has a random member answer the membership, so that the core hears datagrams.
func (c *crowd) alive() { c.reach(c.rng.IntN(len(c.names))) }

// cost returns the processor time of f, and what the core sent meanwhile.
func (c *crowd) cost(f func()) (time.Duration, int) {
	sent, begin := c.sent, cpuTime()
	f()
	return cpuTime() - begin, c.sent - sent
}

// least returns the least cost of several runs.
func (c *crowd) least(runs int, f func()) (cpu time.Duration, bytes int) {
	for k := range runs {
		if d, b := c.cost(f); k == 0 || d < cpu {
			cpu, bytes = d, b
		}
	}
	return cpu, bytes
}

// memberOp is an operation whose cost is measured: of times of them.
type memberOp struct {
	name    string
	measure func(c *crowd) (cpu time.Duration, bytes, times int)
}

// measureOps prints the lines that are asked for of some operations, on a core that
// newPopulated makes if there are any.
func measureOps(o options, nodes, networks int, ops []memberOp, newPopulated func() *crowd) {
	var c *crowd
	for _, op := range ops {
		if !o.wants("op=%s nodes=%d networks=%d", op.name, nodes, networks) {
			continue
		}
		if c == nil {
			c = newPopulated()
		}
		if o.steps && op.name == "mismatch" {
			continue // it makes a second mesh to compare with, whose steps would count
		}
		if o.steps {
			n, err := countSteps(func() { op.measure(c) })
			if err != nil {
				fmt.Fprintln(os.Stderr, "steps:", err)
				os.Exit(1)
			}
			fmt.Printf("steps op=%s nodes=%d networks=%d steps=%d\n", op.name, nodes, networks, n)
			continue
		}
		cpu, bytes, times := op.measure(c)
		fmt.Printf("members op=%s nodes=%d networks=%d cpu_us=%.3f bytes=%d\n", op.name, nodes, networks,
			float64(cpu.Nanoseconds())/1000/float64(times), bytes/times)
	}
}

// memberCosts measures what grows with the number of members, if anything does.
func memberCosts(o options, nodes int) {
	measureOps(o, nodes, 0, []memberOp{{"list", listCost}}, func() *crowd { return newCrowd(o, nodes, 0) })
	ops := []memberOp{
		{"join", joinCost}, {"death", deathCost}, {"mismatch", mismatchCost}, {"idle", idleCost}, {"tenth_lost", lossCost},
	}
	measureOps(o, nodes, 0, ops, func() *crowd {
		c := newCrowd(o, nodes, 0)
		c.populate(func(int) []string { return nil })
		return c
	})
}

// networkCosts measures what grows with the number of networks in which this node takes
// part, if anything does. The others take part in two of them each.
func networkCosts(o options, networks int) {
	ops := []memberOp{{"packet", packetCost}, {"member_event", eventCost}, {"idle", idleCost}}
	measureOps(o, wideMembers, networks, ops, func() *crowd {
		c := newCrowd(o, wideMembers, networks)
		c.populate(func(i int) []string { return []string{networkName(i % networks), networkName((i + 7) % networks)} })
		return c
	})
}
