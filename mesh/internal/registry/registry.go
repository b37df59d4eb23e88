// Package registry holds what one node states about itself: its tasks, the
// networks that were made on it, the claims and settings that it carries for its
// services, and the removals of networks that it has to repeat.
//
// All of it is one immutable value, a Snapshot, with one writer: the goroutine of
// Run. A change is made on a draft, written to the Store in one write together with
// the changes that wait behind it, and stated in one step of the Publisher (N2). So
// nothing is stated or acknowledged before it is on disk.
//
// The package knows neither gossip nor files nor the kernel. It talks to the mesh
// through Publisher and Peers, to the disk through Store, to load balancing through
// Balancing. registrytest has fakes of them. Other origins of tasks than the API
// register through the same writer.
package registry

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/store"
	"meshd/mesh/source"
	"meshd/state"
)

// Store keeps records, by bucket and key, that the registry alone gives a meaning. A
// store.DB is one.
type Store interface {
	// Read calls f for every record, in the order of buckets and keys, and checks that
	// they are all of them. It is called before the first Write. f must not keep value.
	Read(f func(bucket, key string, value []byte) error) error
	// Write makes changes in one transaction, and returns when the disk has them. all
	// returns everything that is to be on disk, the changes included: it is called if
	// the Store has to write everything anew. After an error the disk has what it had
	// before, or the changes besides, and the next Write writes everything anew. Writes
	// are made one after the other.
	Write(changes []store.Change, all func() []store.Change) error
}

// Publisher is the mesh as the registry needs it: one protocol core, and the views
// that readers use without waiting for it. It is safe for concurrent use.
type Publisher interface {
	// Do calls f within one step of the core and returns when f has. If it returns an
	// error, f was not called and will not be.
	Do(ctx context.Context, f func(c Core)) error
	// Source returns the views of the networks that this node takes part in.
	Source() state.Source
}

// Core is the protocol core within one step. It must not be kept.
type Core interface {
	// Now is the time of the core, since the node started.
	Now() time.Duration
	// Store is what the node knows. It is for reading.
	Store() *state.Store
	// Commit writes changes to the node's own stream in a network; "" is the global scope.
	Commit(network string, changes []state.Change) error
	// JoinNetwork makes the node take part in a network. The error is an ErrNameTaken if
	// the name cannot be used on this node.
	JoinNetwork(name string) error
	// LeaveNetwork ends the node's part in a network.
	LeaveNetwork(name string) error
	// Host says what this node does for a service, before a Commit.
	Host(network, service string, h state.Hosting)
	// Yielded reports that another node has this node's name, so that this one must state
	// nothing (S7).
	Yielded() bool
	// Left reports that the node has said goodbye (S9).
	Left() bool
	// MemberStates returns the state of every member as the API names it.
	MemberStates() map[state.NodeID]string
}

// Errors that a Publisher returns, or wraps.
var (
	ErrStopped   = errors.New("the mesh node has stopped")
	ErrNameTaken = errors.New("the name is not usable on this node")
	ErrNoNetwork = errors.New("this node does not take part in the network")
)

// Peers are the other nodes, asked directly.
type Peers interface {
	// Nodes lists the known members, this node included.
	Nodes(ctx context.Context) ([]control.Node, error)
	// AskPools puts a PoolsCall to every live node at once. Nodes that did not answer in
	// time are in silent.
	AskPools(ctx context.Context, body []byte) (answers map[string]PoolsAnswer, silent []control.SilentNode, err error)
}

// Balancing is what serves VIPs on this host. It is safe for concurrent use.
type Balancing interface {
	// VIPsUsable reports whether this kernel serves VIPs at all (R5).
	VIPsUsable() bool
	// Why says, for people, why load balancing is as it is.
	Why() string
	// WhyNoVIPs says what keeps this host from serving a network, or "".
	WhyNoVIPs(network string) string
	// AgainstPools says what on this host keeps it from serving pools, or "" (L9).
	AgainstPools(pools []netip.Prefix) string
}

// Config configures a Registry.
type Config struct {
	// What the node is. Fixed, but for what functions return.

	Self               state.NodeID          // the node's name
	KeepNetworks       []string              // networks to take part in without a reason
	AllowLoopbackTasks bool                  // whether tasks may have loopback addresses
	Domain             string                // of the DNS names of services
	Bounds             func() Bounds         // of the moment; called often
	Info               func() state.NodeInfo // what the node says of itself at the moment

	// Looked is called about once a second by one goroutine, with the definitions and
	// the networks of this node if they may have changed since the last call, else nil.
	Looked func(defs *state.Definitions, joined []string)

	// What the registry talks to.

	Store     Store        // of what is registered
	Publisher Publisher    // the mesh
	Peers     Peers        // the other nodes
	Balancing Balancing    // of this host
	Log       *slog.Logger // for what no caller is there to hear
}

// Registry is what this node states. Make it with New, call Restore and Claim once,
// then Run. Its other methods are safe for concurrent use while Run runs.
type Registry struct {
	cfg    Config       // fixed
	log    *slog.Logger // of cfg
	upkeep *upkeep      // belongs to a goroutine of Run

	// What is registered. The writer alone replaces it.

	current  atomic.Pointer[Snapshot] // as it is on disk
	restored *draft                   // what the start changed of it; nil once Claim has written it

	// Changes on their way to the writer.

	queue chan *update  // capacity maxWaiting
	ended chan struct{} // closed when the writer has returned

	// Counters since the start, for metrics.

	writes   atomic.Uint64 // transactions
	changes  atomic.Uint64 // registered with them
	failures atomic.Uint64 // of writes

	// What makes requests wait for each other.

	pinning  turn     // held by a request that asks for an address by hand
	defining turn     // held by a request that makes or removes a network
	proposed proposal // the network that is being made

	// Sources of tasks, and what checks them.

	sink     *Sink          // of units
	verdicts verdicts       // that are stated, and not on disk yet
	watcher  source.Watcher // told of every task; nil: nobody; set before Run
}

// New returns the registry of a node that had registered s when its last life ended.
func New(cfg Config, s *Snapshot) *Registry {
	r := &Registry{
		cfg: cfg, log: cfg.Log, queue: make(chan *update, maxWaiting), ended: make(chan struct{}),
		pinning: newTurn(), defining: newTurn(), restored: s.draft(),
	}
	r.current.Store(s)
	r.upkeep, r.sink = newUpkeep(r), newSink(r)
	return r
}

// Snapshot returns what is registered: all of it is on disk. It must not be changed.
func (r *Registry) Snapshot() *Snapshot { return r.current.Load() }

// Run makes changes and keeps what the node states in line with the mesh until ctx
// ends.
func (r *Registry) Run(ctx context.Context) error {
	r.tellAll()
	var parts sync.WaitGroup
	parts.Go(func() { r.upkeep.run(ctx) })
	parts.Go(func() { r.sink.retry(ctx) })
	r.runWriter(ctx)
	parts.Wait()
	return nil
}

// Wake makes the registry look at once at what follows from the mesh, instead of
// within a second.
func (r *Registry) Wake() { r.upkeep.wake() }

// Rewrite writes everything that is registered to the Store again.
func (r *Registry) Rewrite(ctx context.Context) error {
	return r.change(ctx, &update{edit: func(d *draft) error { d.touchAll(); return nil }})
}

// RewriteLast is Rewrite for a registry whose Run has returned.
func (r *Registry) RewriteLast() error {
	d := r.Snapshot().draft()
	d.touchAll()
	return r.save(d, r.Snapshot())
}

// Stats counts what the registry has done since the start.
type Stats struct {
	Writes, Changes, Failures uint64 // transactions; what was registered with them; those that failed
	Waiting                   int    // changes that wait for the writer
}

// Stats returns the counters.
func (r *Registry) Stats() Stats {
	return Stats{
		Writes: r.writes.Load(), Changes: r.changes.Load(), Failures: r.failures.Load(),
		Waiting: len(r.queue),
	}
}

// check logs what the core refused of what is registered.
func (r *Registry) check(err error) {
	if err != nil {
		r.log.Error("what is registered could not be stated", "error", err)
	}
}

// do calls f in a step of the core.
func (r *Registry) do(ctx context.Context, f func(c Core)) error { return r.cfg.Publisher.Do(ctx, f) }

// source returns the views.
func (r *Registry) source() state.Source { return r.cfg.Publisher.Source() }
