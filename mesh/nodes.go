package mesh

import (
	"cmp"
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// Version implements control.NodeBackend.
func (n *Node) Version(context.Context) (control.Version, error) {
	v := control.Version{
		Version: n.version, Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		API: control.APIVersion, Node: n.cfg.Node,
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v, nil
}

// Nodes implements control.NodeBackend.
func (n *Node) Nodes(ctx context.Context) ([]control.Node, error) {
	var out []control.Node
	err := n.host.Do(ctx, func(c *gossip.Core, now time.Duration) {
		self := state.NodeID(n.cfg.Node)
		out = append(out, control.Node{
			Name: n.cfg.Node, Address: n.host.Addr().String(), State: control.NodeAlive, Since: n.started, Self: true,
			Listed: true, Proven: true,
			BootID: n.boot(), Incarnation: c.Store().Incarnation(), LBDriver: n.info().LB, Networks: networksOf(c, self),
			Version: n.version,
		})
		for _, m := range c.Members() {
			x := control.Node{
				Name: string(m.ID), Address: m.Addr.String(), State: m.State, Since: time.Now().Add(m.Since - now),
				Listed: m.Listed, Proven: m.Proven, BootID: state.FormatBoot(m.Boot), LBDriver: m.Node.LB,
				Networks: networksOf(c, m.ID), Version: m.Node.Version,
			}
			if h, ok := c.Store().Global().Head(m.ID); ok {
				x.Incarnation = h.Inc
			}
			if rtt, ok := n.host.RTT(m.ID); ok && m.State == control.NodeAlive {
				x.RTTMillis = float64(rtt.Microseconds()) / 1000
			}
			out = append(out, x)
		}
	})
	slices.SortFunc(out, func(a, b control.Node) int { return cmp.Compare(a.Name, b.Name) })
	return out, err
}

func networksOf(c *gossip.Core, o state.NodeID) []string {
	out := []string{}
	for _, e := range c.Store().Global().OwnerEntries(o, state.KindMember) {
		out = append(out, e.Key())
	}
	return out
}

// Join implements control.NodeBackend.
func (n *Node) Join(ctx context.Context, req control.JoinRequest) (control.JoinReply, error) {
	addrs, err := req.Parse()
	if err != nil {
		return control.JoinReply{}, err
	}
	out := control.JoinReply{Results: []control.JoinResult{}}
	ok := 0
	for _, r := range n.host.Join(ctx, addrs) {
		x := control.JoinResult{Address: r.Addr}
		if r.Err != nil {
			x.Error = r.Err.Error()
		} else {
			ok++
		}
		out.Results = append(out.Results, x)
	}
	if ok == 0 {
		return out, control.Refuse(control.CodeRefused,
			"check the address and port, that meshd runs there, and that both have the same --key-file", "no node answered: %s",
			out.Results[0].Error)
	}
	err = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		out.Members = 1
		for _, m := range c.Members() {
			if m.State == control.NodeAlive {
				out.Members++
			}
		}
	})
	if out.Members == 1 { // the core has yet to be told whom the membership lists since the join
		out.Members = max(1, len(n.host.Membership()))
	}
	return out, err
}

// Leave implements control.NodeBackend.
func (n *Node) Leave(ctx context.Context) (control.LeaveReply, error) {
	nodes, err := n.Nodes(ctx)
	if err != nil {
		return control.LeaveReply{}, err
	}
	r := control.LeaveReply{Stopping: true}
	for _, x := range nodes {
		if !x.Self && x.State == control.NodeAlive {
			r.Informed++
		}
	}
	n.Goodbye(ctx)
	time.AfterFunc(200*time.Millisecond, n.stop)
	return r, nil
}

// Goodbye leaves the mesh in order: the node's last, empty snapshot spreads
// (S9). Registrations stay on disk: the next start states them again, and the
// kernels stay as they are until then, without this node's tasks or not.
func (n *Node) Goodbye(ctx context.Context) {
	n.balancing.Hold(ctx)
	if err := n.host.Leave(ctx); err != nil {
		n.log.Warn("the node did not leave in order", "error", err)
	}
}

// Watch implements control.NodeBackend.
func (n *Node) Watch(ctx context.Context, req control.WatchRequest, emit func(control.Event) error) error {
	return n.events.Watch(ctx, req, emit)
}
