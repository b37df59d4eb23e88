package mesh

import (
	"context"

	"meshd/mesh/control"
	"meshd/mesh/internal/peers"
	"meshd/state"
)

// caller lets a node's parts ask the other nodes.
type caller struct{ n *Node }

var _ peers.Caller = caller{}

// Nodes lists all nodes.
func (c caller) Nodes(ctx context.Context) ([]control.Node, error) { return c.n.Nodes(ctx) }

// Call asks a node.
func (c caller) Call(ctx context.Context, to state.NodeID, op string, body []byte) ([]byte, error) {
	return c.n.host.Call(ctx, to, op, body)
}
