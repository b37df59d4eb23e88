package mesh

import (
	"context"
	"errors"
	"fmt"

	"meshd/gossip"
	"meshd/mesh/internal/store"
)

// disk is the node on its data directory.
type disk struct{ *Node }

// keep watches over the data directory (N3), and over the key file.
func (n disk) keep(ctx context.Context) error {
	k := &store.Keeper{
		Dir: n.dir, Rewrite: n.saveAll, Log: n.log,
		Looked: func() { n.keys.Look(n.current().KeyFile) },
	}
	return k.Run(ctx)
}

// saveAll writes every file again.
func (n disk) saveAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	_ = n.reg.Rewrite(ctx)
	n.chores.rewrite()
	_ = n.boxes.Save()
	_, _ = n.keys.Save(), n.sysctls.Write()
	_ = n.savePeers(nil, n.host.Peers)
}

// saveLast writes what is not on disk when the node stops; the error says what is lost.
func (n disk) saveLast() error {
	if !n.dir.Present() {
		if err := n.dir.Remake(); err != nil {
			return fmt.Errorf("data-dir: %s was removed, and cannot be made again: %w; what was registered since the start "+
				"is lost", n.dir.Root(), err)
		}
		_ = n.reg.RewriteLast()
		_, _, _ = n.boxes.Save(), n.keys.Save(), n.sysctls.Write()
	} else if n.dir.Failing(fileRegistry) {
		_ = n.reg.RewriteLast()
	}
	_ = n.sysctls.Write()
	id := n.chores.id
	id.Lamport = n.host.Lamport()
	if id.check() == nil {
		_ = n.dir.Save(fileNode, id)
	}
	return n.dir.Unsaved()
}

// errUnclaimed says that the data directory is not this life's yet.
var errUnclaimed = errors.New("the node has not started")

// savePeers keeps the peers, once the data directory is this life's.
func (n disk) savePeers(changes []gossip.PeerChange, all func() []gossip.Peer) error {
	if !n.claimed.Load() {
		return errUnclaimed
	}
	err := n.peers.save(changes, all)
	if err == nil {
		n.notices.Set("peers", "")
		n.notices.Set(filePeersLog, "")
	}
	return err
}
