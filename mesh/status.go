package mesh

import (
	"context"
	"time"

	"meshd/gossip"
	"meshd/lb/hostcheck"
	"meshd/mesh/control"
	"meshd/mesh/internal/observe"
	"meshd/mesh/internal/registry"
	"meshd/state"
)

// Status implements control.NodeBackend.
func (n *Node) Status(ctx context.Context) (control.Status, error) {
	s := control.Status{
		Node: n.cfg.Node, BootID: n.boot(), Version: n.version, Started: n.started, Bind: n.host.Addr().String(),
		DNS: []string{}, Domain: n.cfg.Domain, DataDir: n.cfg.DataDir, Encrypted: len(n.keys.All()) > 0,
		Networks: []control.NetworkStatus{}, LBDriver: n.info().LB, LBWhy: n.balancing.Why(), LB: n.balancing.Health(ctx),
		EventIndex: n.events.Index(),
		Degraded:   []string{}, Conflicts: []string{}, Warnings: []string{},
	}
	for _, a := range n.dns.Addrs() {
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
		joined, _ := c.Store().Networks()
		s.Conflicts = append(s.Conflicts, registry.Troubles(c.Store().Definitions(), joined)...)
		seen := observe.Look(c.Store())
		s.Conflicts = append(s.Conflicts, seen.UnservedTexts()...)
		s.Warnings = append(s.Warnings, observe.UndefinedNetworks(n.cfg.Networks, c.Store().Definitions().Effective)...)
		if full := c.Room().Full(); full != "" {
			s.Warnings = append(s.Warnings, full)
		}
		if full := n.host.PeerRoom().Full(); full != "" {
			s.Warnings = append(s.Warnings, full)
		}
		if d := n.notices.Get("duplicate"); d != "" {
			s.Conflicts = append(s.Conflicts, d)
		}
	})
	s.Conflicts = append(s.Conflicts, n.reg.Sink().Waiting()...)
	s.Sandboxes = len(n.boxes.List())
	for i := range s.Networks {
		count(n, &s, &s.Networks[i])
	}
	explain(n, &s)
	return s, err
}

// count adds the services and tasks of a network, and what stands against them.
func count(n *Node, s *control.Status, w *control.NetworkStatus) {
	v := n.host.Source().View(w.Network)
	if v == nil {
		return
	}
	services := v.Services()
	s.Conflicts = append(s.Conflicts, observe.ServiceConflicts(w.Network, services)...)
	for _, svc := range services {
		w.Services++
		w.Tasks += svc.Members.Len()
		for _, m := range svc.Members.All() {
			if m.Owner() == state.NodeID(n.cfg.Node) {
				s.LocalTasks++
			}
		}
	}
}

// explain adds what is wrong: Degraded while something does not work, Warnings while
// something could be better.
func explain(n *Node, s *control.Status) {
	n.balancing.Explain(s)
	explainHost(n.lookout.Findings(), s)
	s.Degraded = append(s.Degraded, n.notices.All()...)
	if t := n.dir.Trouble(); t != "" {
		s.Degraded = append(s.Degraded, t)
	}
	s.Degraded = append(s.Degraded, n.dns.Troubles()...)
	s.Degraded = append(s.Degraded, n.boxes.Troubles()...)
	if len(n.dns.Addrs()) == 0 {
		s.Warnings = append(s.Warnings, "no DNS address: start meshd with --dns IP:PORT")
	}
	s.Warnings = append(s.Warnings, n.socket.warnings(time.Now())...)
	s.Warnings = append(s.Warnings, n.dns.Warnings()...)
	s.Warnings = append(s.Warnings, n.keys.Warnings(n.cfg.Insecure, n.cfg.BindAddr.String(), n.current().KeyFile)...)
	s.Warnings = append(s.Warnings, n.balancing.Unheard()...)
	for _, w := range s.Networks {
		if !w.Synced {
			s.Warnings = append(s.Warnings, "network "+w.Network+" has not yet been compared with a peer")
		}
	}
}

// explainHost adds to a status what of the host is against the node.
func explainHost(found []hostcheck.Finding, s *control.Status) {
	for _, f := range found {
		if f.Severity == hostcheck.Fault {
			s.Degraded = append(s.Degraded, f.String())
		} else {
			s.Warnings = append(s.Warnings, f.String())
		}
	}
}
