// Package mesh is one whole node: configuration, registrations and their
// persistence, the protocol's host, the DNS server, the load balancer and the
// control API. It is the only package that knows all the others.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/gossip"
	"meshd/lb"
	"meshd/lb/hostwatch"
	"meshd/mesh/control"
	"meshd/resolver"
	"meshd/state"
)

// Node is one member of the mesh. Make it with New, run it with Run. It
// implements control.Backend; those methods are safe for concurrent use.
type Node struct {
	cfg     *settled
	log     *slog.Logger
	version string
	started time.Time

	dir      *dataDir
	keys     *keystore
	host     *gossip.Host
	dns      *resolver.Server
	dnsAddrs []netip.AddrPort
	balancer *lb.Balancer       // the host's, which is in balancers too
	watch    *hostwatch.Watcher // of the host's addresses and routes
	boxes    *sandboxes
	events   *control.EventLog
	listener net.Listener
	metrics  *metrics
	stop     context.CancelFunc
	notices  notices

	balancers balancers
	dupSeen   atomic.Int64 // when another node with our name was last heard of, Unix seconds

	mu  sync.Mutex // guards what follows, and orders registrations with their files
	reg *registry
	id  identity
}

// New opens everything that can fail: configuration, data directory, gossip
// socket, DNS sockets, control socket. The error says which and what to do.
func New(cfg Config, version string, log *slog.Logger) (*Node, error) {
	s, err := cfg.settle()
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: s, log: log, version: version, started: time.Now(), stop: func() {}}
	for _, open := range []func() error{n.openData, n.openSocket, n.openHost, n.openBalancer, n.openDNS, n.openSandboxes} {
		if err := open(); err != nil {
			n.close()
			return nil, err
		}
	}
	n.metrics = newMetrics(n)
	n.restore()
	if err := n.listenDNS(); err != nil {
		n.close()
		return nil, err
	}
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
	if n.host != nil {
		_ = n.host.Run(over) // returns at once, with everything closed
	}
	if n.listener != nil {
		_ = n.listener.Close()
	}
	if n.dir != nil {
		_ = n.dir.close()
	}
}

func (n *Node) openData() (err error) {
	if n.dir, err = openDataDir(n.cfg.DataDir); err != nil {
		return err
	}
	if n.reg, err = n.dir.registry(); err != nil {
		return err
	}
	if n.id, err = n.dir.begin(n.cfg.Node); err != nil {
		return err
	}
	n.keys, err = openKeystore(n.dir, n.cfg.keys)
	return err
}

func (n *Node) openSocket() (err error) {
	n.listener, err = control.Listen(n.cfg.Socket)
	return err
}

func (n *Node) openHost() error {
	peers, err := gossip.LoadPeers(n.dir.file("peers.json"))
	if err != nil {
		return err
	}
	n.host, err = gossip.NewHost(gossip.HostConfig{
		Core: n.cfg.core(), Self: state.NodeID(n.cfg.Node), Bind: n.cfg.bind, Advertise: n.cfg.advertise,
		Profile: n.cfg.Profile, Join: n.cfg.Join, Peers: peers, SavePeers: n.savePeers,
		Keys: n.keys.all(), Incarnation: n.id.Incarnation, Lamport: n.id.Lamport,
		Limits: n.cfg.limits(), OnEvent: n.onEvent, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.events = control.NewEventLog(n.boot(), 16384)
	n.handleCalls()
	return nil
}

func (n *Node) boot() string { return fmt.Sprintf("%016x", n.host.Boot()) }

func (n *Node) savePeers(ps []gossip.Peer) {
	if err := gossip.SavePeers(n.dir.file("peers.json"), ps); err != nil {
		n.log.Error("peers not saved", "error", err)
	}
}

func (n *Node) openBalancer() (err error) {
	ds, err := drivers(n.cfg.LB, "", n.log)
	if err != nil {
		return fmt.Errorf("lb: %w", err)
	}
	node := lb.Node{Self: state.NodeID(n.cfg.Node), AllowLoopback: n.cfg.AllowLoopbackTasks}
	if a := n.host.Addr().Addr(); a.Is4() {
		node.Src4 = a
	} else {
		node.Src6 = a
	}
	cfg := n.balancerConfig("")
	n.watch = n.watchHost("", n.log)
	cfg.Drivers, cfg.Node, cfg.Facts = ds, node, n.watch
	if n.balancer, err = lb.New(cfg); err == nil {
		n.balancers.add("", n.balancer)
	}
	return err
}

// vipsUsable reports whether this kernel serves VIPs (R5).
func (n *Node) vipsUsable() bool { return n.balancer.Counters().Driver != "" }

// Run runs the node until ctx ends or Leave was asked for.
func (n *Node) Run(ctx context.Context) error {
	defer n.dir.close()
	ctx, n.stop = context.WithCancel(ctx)
	defer n.stop()
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { return n.host.Run(run) })
	g.Go(func() error { return n.watch.Run(run) })
	g.Go(func() error { return n.watchNeeds(run) })
	g.Go(func() error { return n.balancer.Run(run) })
	n.boxes.start(run)
	g.Go(func() error { return n.boxes.wait(run) })
	g.Go(func() error { return n.chores(run) })
	g.Go(func() error { return n.watchViews(run) })
	g.Go(func() error { return control.Serve(run, n.listener, n, n.log) })
	g.Go(func() error {
		<-run.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(run), 2*time.Second)
		defer cancel()
		n.events.Close()
		return n.dns.Close(last)
	})
	n.log.Info("meshd runs", "node", n.cfg.Node, "gossip", n.host.Addr().String(), "dns", fmt.Sprint(n.dnsAddrs), "socket", n.cfg.Socket,
		"incarnation", n.id.Incarnation, "encrypted", len(n.keys.all()) > 0)
	if len(n.keys.all()) == 0 {
		n.log.Warn("gossip is not encrypted: who reaches the address is a member of the mesh and can change what this host does", "address", n.cfg.bind, "insecure", n.cfg.Insecure)
	}
	err := g.Wait()
	n.saveIdentity()
	if errors.Is(err, gossip.ErrStopped) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// restore states again what the node stated before, in one step per network,
// so that peers swap the old life for the new one without a gap (S4).
func (n *Node) restore() {
	n.host.Prepare(func(c *gossip.Core, now time.Duration) {
		n.check(c.Commit(now, "", append(n.globals(), state.Change{Kind: state.KindNode, Body: string(state.AppendNode(nil, n.info()))})))
		for _, name := range n.cfg.Networks {
			n.check(c.JoinNetwork(now, name))
		}
		for _, name := range slices.Sorted(maps.Keys(n.reg.Networks)) {
			l := n.reg.Networks[name]
			if !l.used() {
				continue
			}
			n.check(c.JoinNetwork(now, name))
			n.hostAll(c, name, l)
			n.check(c.Commit(now, name, l.changes()))
		}
	})
}

// hostAll tells the core what this node does for each service of a network.
func (n *Node) hostAll(c *gossip.Core, network string, l *localNetwork) {
	tasks := map[string]int{}
	for s := range l.Services {
		tasks[s] = 0
	}
	for _, t := range l.Tasks {
		tasks[t.Service]++
	}
	for s, count := range tasks {
		n.hostService(c, network, s, count, l)
	}
}

// hostService tells the core what this node does for one service.
func (n *Node) hostService(c *gossip.Core, network, service string, tasks int, l *localNetwork) {
	h := state.Hosting{Tasks: tasks}
	if until := l.Services[service].Until; tasks == 0 && !until.IsZero() {
		h.Until = max(time.Until(until)+time.Since(n.host.Started()), time.Second)
	}
	c.Host(network, service, h)
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

// onEvent hears the core's events. It runs in the host's goroutine.
func (n *Node) onEvent(e gossip.Event) {
	switch e.Kind {
	case gossip.EventReincarnate:
		go n.saveIdentity()
		n.log.Warn("a peer held a newer stream of this node: a higher incarnation starts (S7)")
	case gossip.EventDuplicate:
		n.log.Error("duplicate node name", "reason", e.Reason)
		n.notices.set("duplicate", e.Reason)
		n.dupSeen.Store(time.Now().Unix())
		n.emit(control.Event{Type: control.EventNodeConflict, Node: n.cfg.Node, Detail: e.Reason})
	case gossip.EventRefused:
		n.log.Warn("refused what a peer sent", "peer", string(e.Node), "error", e.Reason)
	case gossip.EventPreserve:
		n.notices.set("preserve", e.Reason)
		n.log.Warn("self-preservation", "reason", e.Reason)
	case gossip.EventPanic:
		n.notices.set("panic", e.Reason+"; the log has the details: please report it, and restart meshd when it is convenient")
	case gossip.EventExhausted:
		n.log.Warn("no VIP", "reason", e.Reason)
	case gossip.EventBeacon:
		n.onBeacon(e)
	default:
		n.nodeEvent(e)
	}
}

// nodeEvent passes on what became of another node.
func (n *Node) nodeEvent(e gossip.Event) {
	types := map[gossip.EventKind]control.EventType{
		gossip.EventAlive: control.EventNodeAlive, gossip.EventSuspect: control.EventNodeSuspect,
		gossip.EventDead: control.EventNodeDead, gossip.EventLeft: control.EventNodeLeft,
	}
	t, ok := types[e.Kind]
	if !ok {
		return
	}
	n.log.Info("node", "name", string(e.Node), "state", string(t))
	n.emit(control.Event{Type: t, Node: string(e.Node)})
}

func (n *Node) emit(es ...control.Event) {
	now := time.Now()
	for i := range es {
		es[i].Time = now
	}
	n.events.Append(es...)
}

// onBeacon measures propagation, or sends the node's own beacon.
func (n *Node) onBeacon(e gossip.Event) {
	now := time.Duration(time.Now().UnixNano())
	if e.Node != state.NodeID(n.cfg.Node) {
		n.metrics.propagation.Observe(max(now-e.Stamp, 0).Seconds())
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = n.host.Do(ctx, func(c *gossip.Core, at time.Duration) {
			stamp := time.Duration(time.Now().UnixNano())
			n.check(c.Commit(at, "", []state.Change{{Kind: state.KindBeacon, Body: string(state.AppendBeacon(nil, stamp))}}))
		})
	}()
}

// notices are the standing conditions that Status shows.
type notices struct {
	mu   sync.Mutex // guards what follows
	text map[string]string
}

func (s *notices) set(key, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text == nil {
		s.text = map[string]string{}
	}
	if text == "" {
		delete(s.text, key)
		return
	}
	s.text[key] = text
}

func (s *notices) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(s.text)) {
		out = append(out, s.text[k])
	}
	return out
}
