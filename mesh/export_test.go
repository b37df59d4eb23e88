package mesh

import (
	"context"

	"meshd/mesh/internal/keys"

	"meshd/state"
)

// AskKeys sends another node what a peer may send it about keys.
func (n *Node) AskKeys(ctx context.Context, to, body string) (string, error) {
	b, err := n.host.Call(ctx, state.NodeID(to), keys.CallName, []byte(body))
	return string(b), err
}
