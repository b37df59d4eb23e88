package mesh

import (
	"context"
	"sync/atomic"
	"time"

	"meshd/gossip"
	"meshd/mesh/internal/observe"
)

// chores are what a node does from time to time: it saves its identity (S7), and says what
// peers state and this node does not take at its word. They belong to one goroutine;
// rewrite is safe for concurrent use.
type chores struct {
	n *Node

	// Its identity.

	id    identity    // as it is on disk
	again atomic.Bool // node.json is to be written in any case

	reporter *observe.Reporter // of what peers state
}

func newChores(n *Node, id identity) *chores {
	return &chores{n: n, id: id, reporter: observe.NewReporter(&n.notices, n.emit, n.log)}
}

// rewrite makes the chores write node.json again.
func (k *chores) rewrite() {
	k.again.Store(true)
	select {
	case k.n.reincarnated <- struct{}{}:
	default:
	}
}

// The pace of chores.
const (
	reportInterval   = 10 * time.Second
	identityInterval = 30 * time.Second
	choreLimit       = 30 * time.Second // how long one chore may wait for the core, or for the disk
)

// run does the chores until ctx ends.
func (k *chores) run(ctx context.Context) error {
	look, save := time.NewTicker(reportInterval), time.NewTicker(identityInterval)
	defer look.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.n.reincarnated:
			k.saveIdentity(ctx)
		case <-look.C:
			k.report(ctx)
		case <-save.C:
			k.saveIdentity(ctx)
		}
	}
}

// saveIdentity writes node.json if the incarnation or the clock moved.
func (k *chores) saveIdentity(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	id := k.id
	_ = k.n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		id.Incarnation = max(id.Incarnation, c.Store().Incarnation())
	})
	id.Lamport = k.n.host.Lamport()
	if id == k.id && !k.again.Swap(false) || id.check() != nil {
		return
	}
	if err := k.n.dir.Save(fileNode, id); err == nil {
		k.id = id
	}
}

// report says what peers state.
func (k *chores) report(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	var seen observe.Statements
	if k.n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { seen = observe.Look(c.Store()) }) == nil {
		k.reporter.Report(time.Now(), &seen)
	}
}
