// Package mesh is one whole node: configuration, registrations and their
// persistence, the protocol's host, the DNS server, the load balancer and the
// control API. It is the only package that knows all the others.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/gossip"
	"meshd/lb"
	"meshd/lb/holder"
	"meshd/lb/hostwatch"
	"meshd/lb/rulewatch"
	"meshd/mesh/config"
	"meshd/mesh/control"
	"meshd/mesh/keys"
	"meshd/mesh/lookout"
	"meshd/mesh/metrics"
	"meshd/mesh/notice"
	"meshd/mesh/registry"
	"meshd/mesh/store"
	"meshd/mesh/watch"
	"meshd/resolver"
	"meshd/state"
)

// Node is one member of the mesh. Make it with New, run it with Run. It
// implements control.Backend; those methods are safe for concurrent use.
type Node struct {
	backend
	cfg     *config.Settings                // as started
	live    atomic.Pointer[config.Settings] // the same, with what Reload changed
	log     *slog.Logger
	version string
	started time.Time

	dir      *store.Dir
	keys     *keys.Store
	host     *gossip.Host
	dns      *resolver.Server
	dnsAddrs []netip.AddrPort
	balancer *lb.Balancer // the host's, which is in balancers too
	sysctls  *sysctls
	watch    *hostwatch.Watcher // of the host's addresses and routes
	rules    *rulewatch.Watcher // of the host's nftables ruleset
	lookout  *lookout.Lookout   // of what else of the host is against it
	seeds    *seeds             // nodes to join that are given by name
	holder   *holder.Holder     // of the host's load balancing
	boxes    *sandboxes
	events   *control.EventLog
	door     *doorway
	metrics  *metrics.Registry
	stop     context.CancelFunc
	notices  notice.Board

	balancers balancers
	reg       *registry.Registry
	saved     *registry.Snapshot // what former lives registered, for openRegistry
	chores    *chores
	happened  *happenings
	told      notice.Board          // conditions that are told of but not shown as they are
	refusals  notice.SubjectLimiter // of handle, as the next
	exhausted notice.SubjectLimiter
	recovered notice.SubjectLimiter
	phases    notice.Limiter
	claimed   atomic.Bool // the data directory is this life's
	late      []func()    // what New is to do then

	reincarnated chan struct{} // capacity 1: node.json is behind
}

// New opens everything that can fail: configuration, data directory, gossip
// socket, DNS sockets, control socket. The error says which and what to do.
// Until nothing can fail any more, nothing is written: a start that fails leaves
// the data directory as it was.
func New(cfg config.Config, version string, log *slog.Logger) (*Node, error) {
	s, err := cfg.Check()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: s, log: log, version: version, started: time.Now(), stop: func() {},
		happened: newHappenings(), seeds: newSeeds(s.Join),
		reincarnated: make(chan struct{}, 1),
	}
	n.live.Store(s)
	for _, open := range []func() error{
		n.openData, n.openSocket, n.openHost, n.openSysctls, n.openBalancer, n.openRegistry, n.openDNS,
		n.openSandboxes, n.restore, n.listenDNS, n.claimData,
	} {
		if err := open(); err != nil {
			n.close()
			return nil, err
		}
	}
	n.metrics = metrics.New(n.collect)
	return n, nil
}

// close releases what New opened before it failed.
func (n *Node) close() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if n.boxes != nil {
		n.boxes.closeAll()
	}
	if n.dns != nil {
		_ = n.dns.Close(over)
	}
	if n.rules != nil {
		_ = n.rules.Close()
	}
	if n.host != nil {
		_ = n.host.Run(over) // returns at once, with everything closed
	}
	if n.door != nil {
		_ = n.door.socket.Close()
	}
	if n.dir != nil {
		_ = n.dir.Close()
	}
}

func (n *Node) openData() (err error) {
	if n.dir, err = store.Open(n.cfg.DataDir, dataFiles()...); err != nil {
		return err
	}
	var leftOut []string
	if n.saved, leftOut, err = readRegistry(n.dir, boundsOf(n.current()), n.started); err != nil {
		return err
	}
	n.noteLeftOut(leftOut)
	id, err := nextIdentity(n.dir, n.cfg.Node)
	if err != nil {
		return err
	}
	n.chores = newChores(n, id)
	n.keys, err = keys.Open(n.dir, n.cfg.GossipKeys)
	return err
}

// noteLeftOut tells what of the files was not believed.
func (n *Node) noteLeftOut(what []string) {
	if len(what) == 0 {
		return
	}
	text := fmt.Sprintf("data-dir: %s holds %d statements of other nodes that cannot be right, and they are left out; "+
		"first: %s", n.dir.File(fileTasks), len(what), what[0])
	n.notices.Set("left out", text)
	n.log.Warn("statements in the data directory are left out", "detail", text)
}

// claimData writes what New changed, and, when nothing can fail any more, the new
// life's identity: before anybody can hear of it (S7), and not if the start fails.
func (n *Node) claimData() error {
	if changed, err := n.reg.Claim(); changed {
		if err = errors.Join(err, n.boxes.save()); err != nil {
			return err
		}
	}
	if err := n.dir.Save(fileNode, n.chores.id); err != nil {
		return err
	}
	n.claimed.Store(true)
	for _, f := range n.late {
		f()
	}
	return nil
}

func (n *Node) openSocket() error {
	s, err := control.ListenFor(n.cfg.Socket, n.cfg.SocketGID)
	if err == nil {
		n.door = &doorway{socket: s, log: n.log, told: &n.notices}
	}
	return err
}

func (n *Node) openHost() (err error) {
	peers := n.loadPeers()
	n.host, err = gossip.NewHost(gossip.HostConfig{
		Core: coreConfig(n.cfg), Self: state.NodeID(n.cfg.Node), Bind: n.cfg.BindAddr, Advertise: n.cfg.AdvertiseAddr,
		Profile: n.cfg.Profile, Join: n.cfg.Join, Peers: peers, SavePeers: n.savePeers,
		Keys: n.keys.All(), Incarnation: n.chores.id.Incarnation, Lamport: n.chores.id.Lamport,
		Limits: n.cfg.Limits(), OnEvent: n.happened.add, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.events = control.NewEventLog(n.boot(), 16384)
	return nil
}

func (n *Node) boot() string { return state.FormatBoot(n.host.Boot()) }

// loadPeers reads the peers of former lives. They are a cache: a file that
// cannot be read is moved aside, and the node joins through its seeds.
func (n *Node) loadPeers() []gossip.Peer {
	path := n.dir.File(filePeers)
	var peers []gossip.Peer
	err := n.dir.CheckPlain(filePeers)
	if err == nil {
		peers, err = gossip.LoadPeers(path, n.started)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return peers
	}
	n.setAside(filePeers, err, "this node finds the mesh through --join only")
	return nil
}

func (n *Node) savePeers(ps []gossip.Peer) {
	if !n.claimed.Load() {
		return
	}
	b, err := gossip.EncodePeers(ps)
	if err == nil {
		err = n.dir.Replace(filePeers, b)
	}
	if err == nil {
		n.notices.Set("peers", "")
	}
}

// Run runs the node until ctx ends or Leave was asked for.
func (n *Node) Run(ctx context.Context) error {
	defer n.dir.Close()
	defer func() { _ = n.holder.Release() }() // the process ends
	ctx, n.stop = context.WithCancel(ctx)
	defer n.stop()
	n.watch.Require(n.cfg.PoolRanges, n.needsFirst())
	incarnation := n.chores.id.Incarnation // the chores' own once they run
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { return n.host.Run(run) })
	g.Go(func() error { return n.sysctls.run(run) })
	g.Go(func() error { return n.watch.Run(run) })
	g.Go(func() error { return n.rules.Run(run) })
	g.Go(func() error { return n.lookout.Run(run) })
	g.Go(func() error { return n.seeds.run(run) })
	g.Go(func() error { return n.watchNeeds(run) })
	g.Go(func() error { return n.balancer.Run(run) })
	n.boxes.start(run)
	g.Go(func() error { return n.boxes.wait(run) })
	g.Go(func() error { return n.reg.Run(run) })
	g.Go(func() error { return n.chores.run(run) })
	g.Go(func() error { return n.keepData(run) })
	g.Go(func() error { return n.happened.run(run, n.handle) })
	g.Go(func() error { return n.watcher().Run(run) })
	g.Go(func() error { return n.watchSubnets(run) })
	g.Go(func() error { return control.Serve(run, n.door.socket, n, n.log) })
	g.Go(func() error { return n.door.run(run) })
	g.Go(func() error {
		<-run.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(run), 2*time.Second)
		defer cancel()
		n.events.Close()
		return n.dns.Close(last)
	})
	n.log.Info("meshd runs", "node", n.cfg.Node, "gossip", n.host.Addr().String(), "dns", fmt.Sprint(n.dnsAddrs), "socket",
		n.cfg.Socket,
		"incarnation", incarnation, "encrypted", len(n.keys.All()) > 0)
	if len(n.keys.All()) == 0 {
		n.log.Warn("gossip is not encrypted: who reaches the address is a member of the mesh and can change what this "+
			"host does", "address", n.cfg.BindAddr, "insecure", n.cfg.Insecure)
	}
	err := g.Wait()
	if errors.Is(err, gossip.ErrStopped) || errors.Is(err, context.Canceled) {
		err = nil
	}
	switch unsaved := n.saveLast(); {
	case unsaved == nil:
		return err
	case err == nil:
		return fmt.Errorf("%w: %w", ErrUnsaved, unsaved)
	default:
		return errors.Join(err, unsaved) // it failed; that something is lost besides does not make it an end in order
	}
}

// watcher returns what turns changes of the views into events.
func (n *Node) watcher() *watch.Watcher {
	return watch.New(watch.Config{
		Source: n.host.Source(), Owners: owners{n.host}, Emit: n.emit,
		Left: func(network string) { n.told.Set("pool "+network, "") },
	})
}

// ErrUnsaved is the end of a node that was asked to end, and did, but for what it
// could not write to its data directory.
var ErrUnsaved = errors.New("stopped, and not everything is saved")

// restore states again what the node stated before (S4).
func (n *Node) restore() error {
	n.host.Prepare(func(c *gossip.Core, now time.Duration) { n.reg.Restore(coreStep{c, now}) })
	return nil
}

func (n *Node) check(err error) {
	if err != nil {
		n.log.Error("stating what is registered", "error", err)
	}
}

func (n *Node) info() state.NodeInfo {
	driver := "none"
	if n.balancer != nil {
		if d := n.balancer.Counters().Driver; d != "" {
			driver = d
		}
	}
	return state.NodeInfo{Boot: n.host.Boot(), Addr: n.host.Addr(), Version: n.version, LB: driver}
}

// coreConfig returns the protocol's settings.
func coreConfig(s *config.Settings) gossip.CoreConfig {
	return gossip.CoreConfig{
		StopOfferingAfter: time.Duration(s.D1), Preserve: s.Preserve, PushRate: s.PushRate,
		Reservation: time.Duration(s.Reservation), BeaconEvery: 10 * time.Second,
	}
}
