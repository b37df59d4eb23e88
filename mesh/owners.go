package mesh

import (
	"context"
	"time"

	"meshd/gossip"
	"meshd/mesh/internal/watch"
	"meshd/state"
)

// owners asks the core, which is ahead of its events, which nodes are dead.
type owners struct{ host *gossip.Host }

var _ watch.Owners = owners{}

// Dead implements watch.Owners. A core that does not answer within a second knows none.
func (o owners) Dead(nodes []state.NodeID) map[state.NodeID]bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	dead := map[state.NodeID]bool{}
	_ = o.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		for _, n := range nodes {
			dead[n] = c.Store().Liveness(n) == state.Dead
		}
	})
	return dead
}

// DeadIn implements watch.Owners.
func (o owners) DeadIn(ctx context.Context, network string) (map[state.NodeID]bool, error) {
	dead := map[state.NodeID]bool{}
	err := o.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		if t := c.Store().Table(network); t != nil {
			for _, n := range t.Owners() {
				dead[n] = c.Store().Liveness(n) == state.Dead
			}
		}
	})
	return dead, err
}
