package mesh

import (
	"context"
	"net/netip"
	"time"

	"meshd/lb/hostread"
	"meshd/mesh/control"
	"meshd/mesh/internal/balancing"
	"meshd/mesh/internal/lookout"
	"meshd/state"
)

// openBalancing opens load balancing, and what looks at the host beside it.
func (n *Node) openBalancing() (err error) {
	n.lookout = lookout.New(lookout.Config{
		Host: &hostView{n: n}, Reader: hostread.Open(), Emit: func(e control.Event) { n.emit(e) }, Log: n.log,
	})
	n.balancing, err = balancing.Open(balancing.Config{
		Self: state.NodeID(n.cfg.Node), Choice: n.cfg.LB, Forwarding: n.cfg.Forwarding,
		AllowLoopback: n.cfg.AllowLoopbackTasks, Verify: time.Duration(n.cfg.LBVerify), PoolRanges: n.cfg.PoolRanges,
		// The address that others dial, unless it is translated on its way here, else the one that this node listens on.
		Addresses: []netip.Addr{n.host.Addr().Addr(), n.cfg.BindAddr.Addr()},
		Source:    n.host.Source(), Changes: n.sysctls, Emit: n.emit, Log: n.log,
		Known: func(ctx context.Context, network string) error { return n.reg.Known(ctx, network) },
	})
	n.lbAPI = n.balancing
	return err
}
