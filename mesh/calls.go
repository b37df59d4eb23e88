package mesh

import (
	"context"
	"time"

	"meshd/gossip"
	"meshd/mesh/internal/compare"
	"meshd/mesh/internal/keys"
	"meshd/mesh/internal/registry"
	"meshd/state"
)

// callPools is the name of the call with which a node asks what stands against a pool.
const callPools = "pools"

// serveCalls makes the parts that ask other nodes, and has them answer the calls of
// others.
func (n *Node) serveCalls() {
	var ring keys.Ring
	if r := n.host.Keyring(); r != nil { // else ring would hold a nil pointer, which is not nil
		ring = r
	}
	rotation := keys.NewService(n.keys, ring, caller{n}, n.cfg.Node, n.log)
	comparison := compare.New(compare.Config{
		Self: state.NodeID(n.cfg.Node), Tables: tables{n}, Peers: caller{n}, NoNetwork: registry.NoNetwork,
	})
	n.KeyBackend, n.comparison = rotation, comparison
	n.host.Handle(keys.CallName, rotation.Answer)
	n.host.Handle(compare.CallSums, comparison.AnswerSums)
	n.host.Handle(compare.CallSpread, comparison.AnswerSpread)
	n.host.Handle(callPools, n.NetworkAPI.AnswerPools)
}

// tables is what this node holds, for comparisons.
type tables struct{ n *Node }

var _ compare.Tables = tables{}

// Do implements compare.Tables.
func (t tables) Do(ctx context.Context, f func(s *state.Store)) error {
	return t.n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { f(c.Store()) })
}

// Balanced implements compare.Tables.
func (t tables) Balanced(ctx context.Context, network string) (bool, error) {
	return t.n.balancing.Applied(ctx, network)
}
