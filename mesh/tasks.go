package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// AddTask implements control.TaskBackend. The registration is on disk before
// it is stated: what a client was told survives a crash.
func (n *Node) AddTask(ctx context.Context, req control.AddTask) (control.TaskAdded, error) {
	return n.register(ctx, req, nil)
}

// register adds a task, also at the place of the tasks beside, by id (see
// admitPlace).
func (n *Node) register(ctx context.Context, req control.AddTask, beside map[string]bool) (control.TaskAdded, error) {
	p, err := req.Parse()
	if err != nil {
		return control.TaskAdded{}, err
	}
	if p.Endpoint.ID == "" {
		p.Endpoint.ID = newID()
	}
	if err := p.Endpoint.Validate(); err != nil {
		return control.TaskAdded{}, err
	}
	if err := n.addTask(ctx, &p, beside); err != nil {
		return control.TaskAdded{}, err
	}
	return n.taskAdded(ctx, &p)
}

// newID returns 25 random characters, as Swarm's task ids.
func newID() string { return strings.ToLower(rand.Text())[:25] }

func (n *Node) addTask(ctx context.Context, p *control.ParsedTask, beside map[string]bool) error {
	if len(p.VIPs) > 0 { // two that ask for one address must see each other's claim
		if err := n.pinning.take(ctx); err != nil {
			return err
		}
		defer n.pinning.give()
	}
	if err := n.admitTask(ctx, p, beside); err != nil {
		return err
	}
	id, service := p.Endpoint.ID, p.Endpoint.Service
	task := savedTask{Service: service, Body: state.AppendEndpoint(nil, &p.Endpoint)}
	return quota(n.reg.change(ctx, &update{
		network: p.Network, service: service, changes: []state.Change{task.change(id)},
		edit: func(d *draft) error {
			if err := n.admitRegistered(&d.registry, p, beside); err != nil {
				return err
			}
			d.setTask(p.Network, id, task)
			return nil
		},
		prepare: func(c *gossip.Core, now time.Duration) (bool, error) {
			if err := joinNetwork(c, now, p.Network); err != nil {
				return false, err
			}
			h := n.hosting(c, p, n.reg.registry().networks[p.Network])
			c.Host(p.Network, service, h)
			return h.Settings != nil || h.PinVIP.IsValid(), nil
		},
		undo: func(d *draft) { d.forgetTask(p.Network, id) },
	}))
}

// admitRegistered refuses an id or a place that is in use on this node, and what
// is over its bounds.
func (n *Node) admitRegistered(r *registry, p *control.ParsedTask, beside map[string]bool) error {
	l, networks, services := r.networks[p.Network], 0, 0
	if l == nil {
		networks++
	} else if err := l.admitID(p.Network, p.Endpoint.ID); err != nil {
		return err
	} else if err := l.admitPlace(&p.Endpoint, beside); err != nil {
		return err
	}
	if l.tasksOf(p.Endpoint.Service) == 0 {
		services++
	}
	return n.current().bounds().room(r, networks, services, 1)
}

// admitTasks refuses the tasks of a sandbox before anything is changed for it, if
// their ids are those of others.
func (n *Node) admitTasks(all []control.AddTask) error {
	r := n.reg.registry()
	for _, t := range all {
		if l := r.networks[t.Network]; l != nil {
			if err := l.admitID(t.Network, strings.ToLower(t.ID)); err != nil {
				return err
			}
		}
	}
	return nil
}

// quota turns S13's error into a refusal.
func quota(err error) error {
	if errors.Is(err, state.ErrQuota) {
		return control.Refuse(control.CodeTooLarge, "remove tasks, or raise max-tasks in the configuration of this node",
			"%v", err)
	}
	return err
}

// hosting says what the task asks of its service.
func (n *Node) hosting(c *gossip.Core, p *control.ParsedTask, l *localNetwork) state.Hosting {
	h := state.Hosting{Tasks: l.tasksOf(p.Endpoint.Service)}
	have, _ := c.Store().Table(p.Network).Settings(p.Endpoint.Service)
	if want := p.Settings(have.Settings); want != have.Settings {
		h.Settings = &want // else nothing was asked for: what others state, now or once it arrives, holds
	}
	for _, v := range p.VIPs {
		if v.Is4() {
			h.PinVIP = v
		}
	}
	return h
}

// admitTask refuses what stands against a registration.
func (n *Node) admitTask(ctx context.Context, p *control.ParsedTask, beside map[string]bool) error {
	err := n.admitAddresses(p)
	if err != nil {
		return err
	}
	doErr := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		defs := c.Store().Defs()
		def, ok := defs[p.Network]
		if !ok {
			err = noNetworkYet(p.Network)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(defs)) {
			d := defs[name]
			for _, a := range []netip.Addr{p.Endpoint.IP4, p.Endpoint.IP6} {
				if a.IsValid() && d.Contains(a) {
					err = control.Refuse(control.CodeConflict, "give the task an address outside every VIP pool",
						"ips: %s is in the VIP pool %s of network %q, where only virtual addresses live", a, pools(d), name)
					return
				}
			}
		}
		if c.Yielded() {
			err = control.Refuse(control.CodeRefused, "stop this daemon and start it with another --node",
				"another live node has the name %q; this one publishes nothing", n.cfg.Node)
			return
		}
		err = n.admitPin(c, p, def)
	})
	if err = errors.Join(doErr, err); err != nil {
		return err
	}
	if err := n.admitRegistered(n.reg.registry(), p, beside); err != nil {
		return err
	}
	return n.admitAgainstView(p)
}

// admitAgainstView refuses an id or address that another task has.
func (n *Node) admitAgainstView(p *control.ParsedTask) error {
	v := n.host.Source().View(p.Network)
	if v == nil {
		return nil
	}
	if e := v.Task(p.Endpoint.ID); e != nil {
		return control.Refuse(control.CodeConflict, "choose another --id",
			"id: %q is already a task of node %q in network %q", p.Endpoint.ID, e.Owner(), p.Network)
	}
	for _, a := range []netip.Addr{p.Endpoint.IP4, p.Endpoint.IP6} {
		if !a.IsValid() {
			continue
		}
		if e := v.ByIP(a).Endpoint; e != nil && e.Owner() != state.NodeID(n.cfg.Node) {
			return control.Refuse(control.CodeConflict, "give every task an address of its own",
				"ips: %s is already the address of task %q of node %q in network %q", a, e.ID(), e.Owner(), p.Network)
		}
	}
	return nil
}

func noNetwork(name string) error {
	return control.Refuse(control.CodeNotFound,
		"meshctl network ls lists those that are; another node's takes a moment to arrive", "network %q is not known here",
		name)
}

// noNetworkYet is noNetwork for who is about to use the network.
func noNetworkYet(name string) error {
	return control.Refuse(control.CodeNotFound,
		"create it: meshctl network create "+name+" --subnet 10.96.0.0/16 (or wait: another node's network takes a moment "+
			"to arrive)", "network %q is not known here", name)
}

// taskAdded waits a moment for the service to have its VIP, and describes the
// result.
func (n *Node) taskAdded(ctx context.Context, p *control.ParsedTask) (control.TaskAdded, error) {
	wait, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	v := n.host.Source().View(p.Network)
	sub := v.Subscribe()
	defer sub.Close()
	for {
		s := v.Service(p.Endpoint.Service)
		if def := v.Def(); settledService(&def, s, p.Endpoint.ID) || wait.Err() != nil {
			out := n.describeAdded(p, s)
			out.Warnings = append(out.Warnings, n.oddAddresses(ctx, p)...)
			return out, nil
		}
		select {
		case <-sub.Ready():
			sub.Drain()
		case <-wait.Done():
		}
	}
}

// settledService reports whether the service shows the task and has its
// address, or says why it has none.
func settledService(def *state.NetworkDef, s *state.Service, id string) bool {
	if s == nil || !slices.ContainsFunc(s.Members, func(e *state.Entry) bool { return e.ID() == id }) {
		return false
	}
	return s.Mode == state.ModeDNSRR || s.VIP4.IsValid() || s.VIP6.IsValid() ||
		strings.Contains(s.Conflict, "exhausted") || withoutFamily(def, s) != ""
}

func (n *Node) describeAdded(p *control.ParsedTask, s *state.Service) control.TaskAdded {
	p.Endpoint.Owner = state.NodeID(n.cfg.Node)
	out := control.TaskAdded{
		Task: control.FromEndpoint(p.Network, p.Endpoint, state.Serving), VIPs: []netip.Addr{},
		Warnings: []string{},
	}
	if s == nil {
		out.Warnings = append(out.Warnings, "the task is registered and not visible yet; see meshctl task ls")
		return out
	}
	cs := control.FromService(s)
	out.Mode, out.VIPs = cs.Mode, cs.VIPs
	if d := n.degraded(s); d != "" {
		out.Warnings = append(out.Warnings, d)
		out.Mode = state.ModeDNSRR.String()
	}
	def := n.defOf(s.Network)
	out.Warnings = append(out.Warnings, familyWarnings(&def, s, &p.Endpoint)...)
	if s.Mode == state.ModeVIP && len(cs.VIPs) == 0 && s.Conflict == "" && withoutFamily(&def, s) == "" {
		out.Warnings = append(out.Warnings, "no VIP yet: the network is not synced; it is claimed as soon as it is")
	}
	return out
}

// degraded says why a vip service is answered like dnsrr (R5, V7), or "".
func (n *Node) degraded(s *state.Service) string {
	switch {
	case s.Mode != state.ModeVIP:
		return ""
	case !s.VIP4.IsValid() && !s.VIP6.IsValid() && s.Conflict != "":
		return s.Conflict
	case n.withoutFamily(s) != "":
		return n.withoutFamily(s)
	case !n.vipsUsable():
		return "no load balancer on this node: " + n.lbWhy() + "; vip services are answered with their tasks"
	case n.whyNoVIPs(s.Network) != "":
		return "the network is not served by this node: " + n.whyNoVIPs(s.Network) +
			"; vip services are answered with their tasks"
	}
	return ""
}

// RemoveTask implements control.TaskBackend.
func (n *Node) RemoveTask(ctx context.Context, ref control.TaskRef) (control.Task, error) {
	u := &update{}
	var e state.Endpoint
	u.edit = func(d *draft) error {
		network, t, err := n.find(&d.registry, ref)
		if err != nil {
			return err
		}
		e, _ = t.endpoint(ref.ID)
		d.removeTask(network, ref.ID, time.Now().Add(n.current().bounds().reservation))
		u.network, u.service = network, t.Service
		u.changes = []state.Change{{Kind: state.KindEndpoint, Key: ref.ID, Delete: true}}
		return nil
	}
	u.prepare = func(c *gossip.Core, _ time.Duration) (bool, error) {
		if l := n.reg.registry().networks[u.network]; l != nil {
			n.hostService(c, u.network, u.service, l)
		}
		return false, nil
	}
	if err := n.reg.change(ctx, u); err != nil {
		return control.Task{}, err
	}
	e.Owner = state.NodeID(n.cfg.Node)
	return control.FromEndpoint(u.network, e, state.Hidden), nil
}

// DrainTask implements control.TaskBackend.
func (n *Node) DrainTask(ctx context.Context, ref control.TaskRef) (control.Task, error) {
	u := &update{}
	var e state.Endpoint
	u.edit = func(d *draft) error {
		network, t, err := n.find(&d.registry, ref)
		if err != nil {
			return err
		}
		if e, err = t.endpoint(ref.ID); err != nil {
			return err
		}
		e.Draining = true
		t.Body = state.AppendEndpoint(nil, &e)
		d.setTask(network, ref.ID, t)
		u.network, u.service, u.changes = network, t.Service, []state.Change{t.change(ref.ID)}
		return nil
	}
	if err := n.reg.change(ctx, u); err != nil {
		return control.Task{}, err
	}
	e.Owner = state.NodeID(n.cfg.Node)
	return control.FromEndpoint(u.network, e, state.Draining), nil
}

// find locates a task of this node.
func (n *Node) find(r *registry, ref control.TaskRef) (network string, t savedTask, err error) {
	var in []string
	for _, name := range slices.Sorted(maps.Keys(r.networks)) {
		if _, ok := r.networks[name].tasks[ref.ID]; ok && (ref.Network == "" || ref.Network == name) {
			in = append(in, name)
		}
	}
	switch len(in) {
	case 1:
		return in[0], r.networks[in[0]].tasks[ref.ID], nil
	case 0:
		return "", t, n.notHere(ref)
	}
	return "", t, control.Refuse(control.CodeRefused, "say which with --network", "task %q is in the networks %s", ref.ID,
		strings.Join(in, ", "))
}

// notHere says where the task is, if it is known at all.
func (n *Node) notHere(ref control.TaskRef) error {
	names, _ := n.host.Source().Networks()
	for _, name := range names {
		m := n.host.Source().View(name).Lookup(ref.ID)
		if m.Kind == state.MatchEndpoint && m.Endpoints[0].ID() == ref.ID && (ref.Network == "" || ref.Network == name) {
			return control.Refuse(control.CodeRefused, "do it there: only its owner may change it", "task %q belongs to node %q",
				ref.ID, m.Endpoints[0].Owner())
		}
	}
	return control.Refuse(control.CodeNotFound, "meshctl task ls lists the tasks of this node", "task %q is not known",
		ref.ID)
}

// Tasks implements control.TaskBackend.
func (n *Node) Tasks(ctx context.Context, f control.TaskFilter) ([]control.Task, error) {
	if err := n.known(ctx, f.Network); err != nil {
		return nil, err
	}
	out := []control.Task{}
	names, _ := n.host.Source().Networks()
	for _, name := range names {
		if f.Network != "" && f.Network != name {
			continue
		}
		for _, s := range n.host.Source().View(name).Services() {
			if f.Service != "" && f.Service != s.Name {
				continue
			}
			for _, t := range control.FromMembers(s) {
				if f.All || t.Node == n.cfg.Node {
					out = append(out, t)
				}
			}
		}
	}
	control.SortTasks(out)
	return out, nil
}
