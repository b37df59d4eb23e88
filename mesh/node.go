// Package mesh is one whole node: it makes the parts, connects them and runs them. It is
// the only package that knows all the others.
//
// A part is a package of its own wherever it can be (config, store, keys, registry,
// lookout, compare, watch, metrics, notice …), knows the rest as interfaces, and is tested
// alone. What is here adapts one part to what another needs. New opens, Run runs one
// goroutine per part until the node is to end, and control.Backend is composed of the
// parts that serve it. What a part owns is changed by that part's goroutine only.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/gossip"
	"meshd/mesh/config"
	"meshd/mesh/control"
	"meshd/mesh/internal/balancing"
	"meshd/mesh/internal/box"
	"meshd/mesh/internal/hostchanges"
	"meshd/mesh/internal/keys"
	"meshd/mesh/internal/lookout"
	"meshd/mesh/internal/metrics"
	"meshd/mesh/internal/names"
	"meshd/mesh/internal/notice"
	"meshd/mesh/internal/registry"
	"meshd/mesh/internal/seeds"
	"meshd/mesh/internal/store"
	"meshd/mesh/internal/watch"
	"meshd/mesh/source/docker"
	"meshd/state"
)

// Node is one member of the mesh. Make it with New, run it with Run. It
// implements control.Backend; those methods are safe for concurrent use.
type Node struct {
	backend

	// The configuration and this life. cfg is never changed.

	cfg     *config.Settings                // as started
	live    atomic.Pointer[config.Settings] // the same, with what Reload changed; its value is never changed
	log     *slog.Logger                    // as given to New
	version string                          // of the program, for people
	started time.Time                       // when New was called
	stop    context.CancelFunc              // ends Run

	// What is on disk.

	dir     *store.Dir  // the data directory, locked until Run ends
	db      *store.DB   // of what is registered, in it
	peers   *peersFile  // the nodes once met, in it
	keys    *keys.Store // the gossip keys, as the keyring has them
	claimed atomic.Bool // the data directory is this life's
	late    []func()    // what New does once nothing can fail any more
	// reincarnated says that node.json is behind the core. Its capacity is 1.
	reincarnated chan struct{}

	// The mesh.

	host  *gossip.Host       // the protocol core and its membership
	seeds *seeds.Seeds       // nodes to join that are given by name
	reg   *registry.Registry // what this node states

	// Names.

	dns *names.Server // on the addresses of the host; sandboxes have servers of their own

	// Load balancing, and the host that it happens on.

	balancing *balancing.Host     // the host's balancer, and what sandboxes have theirs from
	boxes     *box.Manager        // the sandboxes
	sysctls   *hostchanges.Record // settings of the host that were changed
	lookout   *lookout.Lookout    // of what else of the host is against the node

	// What is said of the node.

	notices    notice.Board                  // standing conditions, for status
	events     *control.EventLog             // what meshctl watch shows
	coreEvents *coreEvents                   // what the core reports, in a goroutine of its own
	chores     *chores                       // what is looked at from time to time
	metrics    *metrics.Registry             // made of the parts' counters when asked for
	docker     *docker.Source                // of tasks that are containers; nil: off
	sources    []func() []control.SourceUnit // what finds tasks by itself looks after
	socket     *socketKeeper                 // the control socket, made again when it is removed
}

// New opens everything that can fail: configuration, data directory, sockets of gossip,
// DNS and the API. The error says which and what to do; one of the configuration is
// config.ErrInvalid. Nothing is written before nothing can fail any more: a start that
// fails leaves the data directory as it was.
func New(cfg config.Config, version string, log *slog.Logger) (*Node, error) {
	s, err := cfg.Check()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: s, log: log, version: version, started: time.Now(), stop: func() {},
		seeds: seeds.New(s.Join), reincarnated: make(chan struct{}, 1),
	}
	n.live.Store(s)
	n.coreEvents = newCoreEvents(n)
	o := &opening{Node: n}
	for _, open := range []func() error{
		o.data, o.controlSocket, o.gossip, n.openSysctls, n.openBalancing, o.registry, n.openDNS,
		n.openSandboxes, n.openDocker, o.restore, n.listenDNS, o.claim,
	} {
		if err := open(); err != nil {
			n.close()
			return nil, err
		}
	}
	n.metrics = metrics.New(collection{n}.all)
	return n, nil
}

// close releases what New opened before it failed.
func (n *Node) close() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if n.boxes != nil {
		n.boxes.Close()
	}
	if n.dns != nil {
		_ = n.dns.Close(over)
	}
	if n.balancing != nil {
		_ = n.balancing.Close()
	}
	if n.host != nil {
		_ = n.host.Run(over) // returns at once, with everything closed
	}
	if n.socket != nil {
		_ = n.socket.socket.Close()
	}
	if n.db != nil {
		_ = n.db.Close()
	}
	if n.dir != nil {
		_ = n.dir.Close()
	}
}

// boot returns the boot id of this life (S7).
func (n *Node) boot() string { return state.FormatBoot(n.host.Boot()) }

// Run runs the node until ctx ends or Leave was asked for.
func (n *Node) Run(ctx context.Context) error {
	defer n.dir.Close()
	defer n.db.Close()
	defer func() { _ = n.balancing.Release() }() // the process ends
	ctx, n.stop = context.WithCancel(ctx)
	defer n.stop()
	incarnation := n.chores.id.Incarnation // the chores' own once they run
	g := n.startParts(ctx)
	n.logStart(incarnation)
	err := g.Wait()
	if errors.Is(err, gossip.ErrStopped) || errors.Is(err, context.Canceled) {
		err = nil
	}
	unsaved := disk{n}.saveLast()
	switch {
	case unsaved == nil:
		return err
	case err == nil:
		return fmt.Errorf("%w: %w", ErrUnsaved, unsaved)
	default:
		return errors.Join(err, unsaved) // it failed; that something is lost besides does not make it an end in order
	}
}

// startParts runs one goroutine per part. All end when ctx does, or when one of
// them fails.
func (n *Node) startParts(ctx context.Context) *errgroup.Group {
	reachable := &reachable{n}
	n.balancing.Require(reachable.first())
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { return n.host.Run(run) })
	g.Go(func() error { return n.sysctls.Run(run) })
	g.Go(func() error { return n.lookout.Run(run) })
	g.Go(func() error { return n.seeds.Run(run) })
	g.Go(func() error { return reachable.watch(run) })
	g.Go(func() error { return n.balancing.Run(run) })
	n.boxes.Start(run)
	g.Go(func() error { return n.boxes.Wait(run) })
	g.Go(func() error { return n.reg.Run(run) })
	g.Go(func() error { return n.runDocker(run) })
	g.Go(func() error { return n.chores.run(run) })
	g.Go(func() error { return disk{n}.keep(run) })
	g.Go(func() error { return n.coreEvents.run(run) })
	g.Go(func() error {
		return watch.New(watch.Config{
			Source: n.host.Source(), Owners: owners{n.host}, Emit: n.emit, Left: n.coreEvents.left,
		}).Run(run)
	})
	g.Go(func() error { return n.dns.WatchClients(run) })
	g.Go(func() error { return control.Serve(run, n.socket.socket, n, n.log) })
	g.Go(func() error { return n.socket.run(run) })
	g.Go(func() error {
		<-run.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(run), 2*time.Second)
		defer cancel()
		n.events.Close()
		return n.dns.Close(last)
	})
	return g
}

// logStart says where the node can be reached, and what is dangerous about it.
func (n *Node) logStart(incarnation uint64) {
	n.log.Info("meshd runs", "node", n.cfg.Node, "gossip", n.host.Addr().String(), "dns", fmt.Sprint(n.dns.Addrs()),
		"socket", n.cfg.Socket, "incarnation", incarnation, "encrypted", len(n.keys.All()) > 0)
	if len(n.keys.All()) == 0 {
		n.log.Warn("gossip is not encrypted: who reaches the address is a member of the mesh and can change what this "+
			"host does", "address", n.cfg.BindAddr, "insecure", n.cfg.Insecure)
	}
}

// ErrUnsaved is the end of a node that was asked to end, and did, but for what it
// could not write to its data directory.
var ErrUnsaved = errors.New("stopped, and not everything is saved")

// check logs that a statement could not be made.
func (n *Node) check(err error) {
	if err != nil {
		n.log.Error("what is registered could not be stated", "error", err)
	}
}

// info returns what the node states about itself.
func (n *Node) info() state.NodeInfo {
	driver := "none"
	if d := n.balancing.Driver(); d != "" {
		driver = d
	}
	return state.NodeInfo{
		Boot: n.host.Boot(), Addr: n.host.Addr(), Version: n.version, LB: driver, Refutes: true, Targets: true,
	}
}
