package mesh

import (
	"context"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/peers"
)

// Who does not answer in time is said to do so, wherever the time ended.
func TestSilentNodes(t *testing.T) {
	n, ctx := startNode(t)
	for _, limit := range []time.Duration{0, 20 * time.Millisecond} {
		short, cancel := context.WithTimeout(ctx, limit)
		ignore := func([]byte) (string, error) { return "", nil }
		_, silent := peers.Call(short, caller{n}, []control.Node{{Name: "b"}}, "spread", nil, ignore)
		cancel()
		if len(silent) != 1 || silent[0] != (control.SilentNode{Node: "b", Error: "does not answer"}) {
			t.Errorf("after %v: %v", limit, silent)
		}
	}
}
