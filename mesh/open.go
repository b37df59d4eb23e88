package mesh

import (
	"fmt"
	"time"

	"meshd/gossip"
	"meshd/mesh/config"
	"meshd/mesh/control"
	"meshd/mesh/internal/keys"
	"meshd/mesh/internal/registry"
	"meshd/mesh/internal/store"
	"meshd/state"
)

// opening is a node that New opens: what it needs only until it runs.
type opening struct {
	*Node
	saved registered // what former lives left
}

// data opens the data directory and reads what former lives left there.
func (n *opening) data() (err error) {
	if n.dir, err = store.Open(n.cfg.DataDir, dataFiles()...); err != nil {
		return err
	}
	if n.saved, err = readRegistry(n.dir, boundsOf(n.current()), n.started); err != nil {
		return err
	}
	n.reportLeftOut(n.saved.leftOut)
	n.db, n.peers = store.NewDB(n.dir, fileRegistry), &peersFile{dir: n.dir}
	id, err := nextIdentity(n.dir, n.cfg.Node)
	if err != nil {
		return err
	}
	n.chores = newChores(n.Node, id)
	n.keys, err = keys.Open(n.dir, n.cfg.GossipKeys)
	return err
}

// reportLeftOut says which statements of the files are not believed.
func (n *opening) reportLeftOut(what []string) {
	if len(what) == 0 {
		return
	}
	text := fmt.Sprintf("data-dir: %s holds %d statements of other nodes that cannot be right, and they are left out; "+
		"first: %s", n.dir.Root(), len(what), what[0])
	n.notices.Set("left out", text)
	n.log.Warn("statements in the data directory are left out", "detail", text)
}

// controlSocket opens the control socket.
func (n *opening) controlSocket() error {
	s, err := control.ListenFor(n.cfg.Socket, n.cfg.SocketGID)
	if err == nil {
		n.socket = &socketKeeper{socket: s, log: n.log, board: &n.notices}
	}
	return err
}

// gossip opens the protocol's sockets.
func (n *opening) gossip() (err error) {
	peers := n.loadPeers()
	n.host, err = gossip.NewHost(gossip.HostConfig{
		Core: coreConfig(n.cfg), Self: state.NodeID(n.cfg.Node), Bind: n.cfg.BindAddr, Advertise: n.cfg.AdvertiseAddr,
		Profile: n.cfg.Profile, Join: n.cfg.Join, Peers: peers, SavePeers: disk{n.Node}.savePeers,
		Keys: n.keys.All(), Incarnation: n.chores.id.Incarnation, Lamport: n.chores.id.Lamport,
		Limits: n.cfg.Limits(), OnEvent: n.coreEvents.add, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.events = control.NewEventLog(n.boot(), 16384)
	return nil
}

// registry makes the registry of what data has read.
func (n *opening) registry() error {
	disputes := &disputes{n: n.Node}
	n.reg = registry.New(registry.Config{
		Self: state.NodeID(n.cfg.Node), KeepNetworks: n.cfg.Networks, AllowLoopbackTasks: n.cfg.AllowLoopbackTasks,
		Domain: n.cfg.Domain, Bounds: func() registry.Bounds { return boundsOf(n.current()) }, Info: n.info,
		Looked: disputes.looked,
		Store:  n.db, Publisher: publisher{n.host}, Peers: registryPeers{n.Node}, Balancing: n.balancing,
		Log: n.log,
	}, n.saved.snapshot)
	n.TaskAPI, n.NetworkAPI, n.ServiceAPI = n.reg.Tasks(), n.reg.Networks(), n.reg.Services()
	n.serveCalls()
	return nil
}

// restore states again what the node stated before (S4).
func (n *opening) restore() error {
	n.host.Prepare(func(c *gossip.Core, now time.Duration) { n.reg.Restore(coreStep{c, now}) })
	return nil
}

// claim writes what New changed and, when nothing can fail any more, the new life's
// identity: before another node can hear of it (S7), and not if the start fails.
func (n *opening) claim() error {
	if err := n.takeOver(); err != nil {
		return err
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

// coreConfig returns the protocol's settings.
func coreConfig(s *config.Settings) gossip.CoreConfig {
	return gossip.CoreConfig{
		StopOfferingAfter: time.Duration(s.D1), Preserve: s.Preserve, PushRate: s.PushRate,
		Reservation: time.Duration(s.Reservation), BeaconEvery: 10 * time.Second,
	}
}
