// Package registrytest has fakes of what a registry talks to: a mesh of one node in
// memory, with the tables and claims of the real one, a disk that can fail, and peers
// and a load balancer that say what a test wants.
package registrytest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/registry"
	"meshd/mesh/internal/store"
	"meshd/state"
)

// Mesh is a registry.Publisher without a network: one node's tables, as package state
// has them. It is safe for concurrent use.
type Mesh struct {
	mu       sync.Mutex // guards what follows
	start    time.Time
	store    *state.Store
	carriers map[string]*state.Carrier // of the networks that the node takes part in
	stopped  bool
	yielded  bool
	commits  int
}

var _ registry.Publisher = (*Mesh)(nil)

// NewMesh returns the mesh of a node that is alone in it, in the given incarnation.
func NewMesh(self state.NodeID, incarnation uint64) *Mesh {
	m := &Mesh{
		start: time.Now(), store: state.NewStore(self, incarnation, state.DefaultLimits(), &Clock{}),
		carriers: map[string]*state.Carrier{},
	}
	m.store.Global().SetSynced()
	m.store.Publish(0)
	return m
}

// Do implements registry.Publisher.
func (m *Mesh) Do(_ context.Context, f func(c registry.Core)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return registry.ErrStopped
	}
	f(core{m})
	m.store.Publish(m.now())
	return nil
}

// Source implements registry.Publisher.
func (m *Mesh) Source() state.Source { return m.store }

// Stop makes every Do fail from now on.
func (m *Mesh) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
}

// SetYielded says whether another node has the name of this one (S7).
func (m *Mesh) SetYielded(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.yielded = yes
	m.store.SetYielded(yes)
}

// Commits returns how many times something was committed.
func (m *Mesh) Commits() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.commits
}

func (m *Mesh) now() time.Duration { return time.Since(m.start) }

// core is one step of a Mesh.
type core struct{ m *Mesh }

func (c core) Now() time.Duration                    { return c.m.now() }
func (c core) Store() *state.Store                   { return c.m.store }
func (c core) Yielded() bool                         { return c.m.yielded }
func (c core) Left() bool                            { return false }
func (c core) MemberStates() map[state.NodeID]string { return map[state.NodeID]string{} }

func (c core) Commit(network string, changes []state.Change) error {
	t := c.m.store.Table(network)
	if t == nil {
		return registry.ErrNoNetwork
	}
	c.m.commits++
	if _, err := t.Commit(changes); err != nil {
		return err
	}
	c.m.store.Publish(c.m.now()) // so that the definition is there for the claims
	if carrier := c.m.carriers[network]; carrier != nil {
		claims, _, _ := carrier.Carry(t, c.m.now())
		t.CommitEach(claims)
		t.TakeClaims()
	}
	return nil
}

func (c core) JoinNetwork(name string) error {
	if c.m.carriers[name] != nil {
		return nil
	}
	c.m.store.Join(name).SetSynced()
	c.m.carriers[name] = state.NewCarrier(time.Second, time.Second)
	return c.Commit("", []state.Change{{Kind: state.KindMember, Key: name}})
}

func (c core) LeaveNetwork(name string) error {
	delete(c.m.carriers, name)
	c.m.store.Leave(name)
	return c.Commit("", []state.Change{{Kind: state.KindMember, Key: name, Delete: true}})
}

func (c core) Host(network, service string, h state.Hosting) {
	if carrier := c.m.carriers[network]; carrier != nil {
		carrier.Services[service] = &h
	}
}

// Clock is a Lamport clock. It belongs to the goroutine of its store.
type Clock struct{ time uint64 }

// Tick advances the clock.
func (c *Clock) Tick() uint64 { c.time++; return c.time }

// Time returns the time.
func (c *Clock) Time() uint64 { return c.time }

// Witness advances the clock to n, if it is behind.
func (c *Clock) Witness(n uint64) { c.time = max(c.time, n) }

// Disk is a registry.Store in memory. It is safe for concurrent use.
type Disk struct {
	mu      sync.Mutex                   // guards what follows
	records map[string]map[string][]byte // by bucket and key; nil: nothing was written
	err     error
}

// Read implements registry.Store.
func (d *Disk) Read(f func(bucket, key string, value []byte) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, bucket := range slices.Sorted(maps.Keys(d.records)) {
		for _, key := range slices.Sorted(maps.Keys(d.records[bucket])) {
			if err := f(bucket, key, d.records[bucket][key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Write implements registry.Store.
func (d *Disk) Write(changes []store.Change, _ func() []store.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	if d.records == nil {
		d.records = map[string]map[string][]byte{}
	}
	for _, c := range changes {
		if d.records[c.Bucket] == nil {
			d.records[c.Bucket] = map[string][]byte{}
		}
		if d.records[c.Bucket][c.Key] = c.Value; c.Value == nil {
			delete(d.records[c.Bucket], c.Key)
		}
	}
	return nil
}

// Fail makes every Write fail with err, or work again if it is nil.
func (d *Disk) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// Text returns all records, a line each.
func (d *Disk) Text() string {
	var b strings.Builder
	_ = d.Read(func(bucket, key string, value []byte) error {
		_, err := fmt.Fprintf(&b, "%s %q %s\n", bucket, key, value)
		return err
	})
	return b.String()
}

// Peers are other nodes that answer as Answers says.
type Peers struct {
	Answers map[string]registry.PoolsAnswer // by node
	Silent  []control.SilentNode
}

// Nodes implements registry.Peers.
func (p *Peers) Nodes(context.Context) ([]control.Node, error) { return nil, nil }

// AskPools implements registry.Peers.
func (p *Peers) AskPools(context.Context, []byte) (map[string]registry.PoolsAnswer, []control.SilentNode, error) {
	return p.Answers, p.Silent, nil
}

// Balancing is a load balancer that works, unless Trouble is set.
type Balancing struct {
	Trouble string // what keeps this host from serving any pool
}

// VIPsUsable implements registry.Balancing.
func (d *Balancing) VIPsUsable() bool { return true }

// Why implements registry.Balancing.
func (d *Balancing) Why() string { return "works" }

// WhyNoVIPs implements registry.Balancing.
func (d *Balancing) WhyNoVIPs(string) string { return d.Trouble }

// AgainstPools implements registry.Balancing.
func (d *Balancing) AgainstPools([]netip.Prefix) string { return d.Trouble }
