package mesh

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/lb"
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

// Status implements control.NodeBackend.
func (n *Node) Status(ctx context.Context) (control.Status, error) {
	s := control.Status{
		Node: n.cfg.Node, BootID: n.boot(), Version: n.version, Started: n.started, Bind: n.host.Addr().String(),
		DNS: []string{}, Domain: n.cfg.Domain, DataDir: n.cfg.DataDir, Encrypted: len(n.keys.All()) > 0,
		Networks: []control.NetworkStatus{}, LBDriver: n.info().LB, LBWhy: n.lbWhy(), LB: n.lbHealth(ctx),
		EventIndex: n.events.Index(),
		Degraded:   []string{}, Conflicts: []string{}, Warnings: []string{},
	}
	for _, a := range n.dnsAddrs {
		s.DNS = append(s.DNS, a.String())
	}
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		s.Incarnation, s.Preserving = c.Store().Incarnation(), c.Preserving()
		s.Members.Alive = 1
		for _, m := range c.Members() {
			*map[string]*int{
				control.NodeAlive: &s.Members.Alive, control.NodeSuspect: &s.Members.Suspect,
				control.NodeDead: &s.Members.Dead, control.NodeLeft: &s.Members.Left,
			}[m.State]++
		}
		s.Tables.Records, s.Tables.Bytes, s.Tables.MaxRecords, s.Tables.MaxBytes = c.Store().Usage()
		for _, t := range c.Store().Tables() {
			s.Quarantined += int(t.Poison() + t.Unbelieved())
			if t.Network() != "" {
				s.Networks = append(s.Networks, control.NetworkStatus{
					Network: t.Network(), Synced: t.View().Synced(),
					Checksum: control.ChecksumText(t.Checksum()),
				})
			}
		}
		s.Conflicts = append(s.Conflicts, conflicts(c)...)
		s.Conflicts = append(s.Conflicts, barredTexts(barredTasks(c))...)
		s.Warnings = append(s.Warnings, undefined(n.cfg.Networks, c.Store().Definitions().Effective)...)
		if d := n.notices.Get("duplicate"); d != "" {
			s.Conflicts = append(s.Conflicts, d)
		}
	})
	s.Sandboxes = len(n.boxes.list())
	for i := range s.Networks {
		n.countTasks(&s, &s.Networks[i])
	}
	n.explainStatus(&s)
	return s, err
}

func (n *Node) countTasks(s *control.Status, w *control.NetworkStatus) {
	v := n.host.Source().View(w.Network)
	if v == nil {
		return
	}
	services := v.Services()
	s.Conflicts = append(s.Conflicts, conflictsIn(w.Network, services)...)
	for _, svc := range services {
		w.Services++
		w.Tasks += len(svc.Members)
		for _, m := range svc.Members {
			if m.Owner() == state.NodeID(n.cfg.Node) {
				s.LocalTasks++
			}
		}
	}
}

// explainStatus fills what is not as it should be.
func (n *Node) explainStatus(s *control.Status) {
	n.explainLB(s)
	n.explainHost(s)
	s.Degraded = append(s.Degraded, n.notices.All()...)
	if t := n.dir.Trouble(); t != "" {
		s.Degraded = append(s.Degraded, t)
	}
	s.Degraded = append(s.Degraded, n.dnsTrouble()...)
	s.Degraded = append(s.Degraded, n.boxes.troubles()...)
	if len(n.dnsAddrs) == 0 {
		s.Warnings = append(s.Warnings, "no DNS address: start meshd with --dns IP:PORT")
	}
	s.Warnings = append(s.Warnings, n.door.warnings(time.Now())...)
	s.Warnings = append(s.Warnings, strangerWarning(n.dns)...)
	s.Warnings = append(s.Warnings, n.keys.Warnings(n.cfg.Insecure, n.cfg.BindAddr.String(), n.current().KeyFile)...)
	s.Warnings = append(s.Warnings, n.unheard()...)
	for _, w := range s.Networks {
		if !w.Synced {
			s.Warnings = append(s.Warnings, "network "+w.Network+" has not yet been compared with a peer")
		}
	}
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
			r.Told++
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
	for _, name := range n.balancers.names() {
		if b := n.balancers.get(name); b != nil {
			if err := b.Hold(ctx); err != nil && !errors.Is(err, lb.ErrStopped) {
				n.log.Warn("leaving: the load balancer changes on", "sandbox", name, "error", err)
			}
		}
	}
	if err := n.host.Leave(ctx); err != nil {
		n.log.Warn("leaving", "error", err)
	}
}

// Watch implements control.NodeBackend.
func (n *Node) Watch(ctx context.Context, req control.WatchRequest, emit func(control.Event) error) error {
	return n.events.Watch(ctx, req, emit)
}
