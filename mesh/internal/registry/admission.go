package registry

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"meshd/mesh/control"
	"meshd/state"
)

// admitRegistered refuses a task whose id or place is in use on this node, and one that
// exceeds the bounds.
func (api *TaskAPI) admitRegistered(s *Snapshot, p *control.ParsedTask, replaces map[string]bool) error {
	l, networks, services := s.networks[p.Network], 0, 0
	if l == nil {
		networks++
	} else if err := l.admitID(p.Network, p.Endpoint.ID); err != nil {
		return err
	} else if err := l.admitPlace(&p.Endpoint, replaces); err != nil {
		return err
	}
	if l.tasksOf(p.Endpoint.Service) == 0 {
		services++
	}
	return api.r.cfg.Bounds().room(s, networks, services, 1)
}

// AdmitTasks refuses tasks whose ids are in use on this node. A sandbox asks before it
// changes anything.
func (api *TaskAPI) AdmitTasks(all []control.AddTask) error {
	s := api.r.Snapshot()
	for _, t := range all {
		if l := s.networks[t.Network]; l != nil {
			if err := l.admitID(t.Network, strings.ToLower(t.ID)); err != nil {
				return err
			}
		}
	}
	return nil
}

// quota makes a refusal of the error about the owner's quota (S13).
func quota(err error) error {
	if errors.Is(err, state.ErrQuota) {
		return control.Refuse(control.CodeTooLarge, "remove tasks, or raise max-tasks in the configuration of this node",
			"%v", err)
	}
	return err
}

// hosting returns what the core is to do for the service of a new task.
func (api *TaskAPI) hosting(c Core, p *control.ParsedTask, l *localNetwork) state.Hosting {
	h := state.Hosting{Tasks: l.tasksOf(p.Endpoint.Service)}
	have, _ := c.Store().Table(p.Network).Settings(p.Endpoint.Service)
	if want := p.Settings(have.Settings); want != have.Settings {
		h.Settings = &want // else nothing was asked for, and what other nodes state holds
	}
	for _, v := range p.VIPs {
		if v.Is4() {
			h.PinVIP = v
		}
	}
	return h
}

// admitTask refuses a task that conflicts with the host, the mesh or this node.
func (api *TaskAPI) admitTask(ctx context.Context, p *control.ParsedTask, replaces map[string]bool) error {
	if err := api.admitMesh(ctx, p); err != nil {
		return err
	}
	return api.admitRegistered(api.r.Snapshot(), p, replaces)
}

// admitMesh refuses a task that conflicts with the host or the mesh.
func (api *TaskAPI) admitMesh(ctx context.Context, p *control.ParsedTask) error {
	err := api.admitAddresses(p)
	if err != nil {
		return err
	}
	doErr := api.r.do(ctx, func(c Core) {
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
						"ips: %s is in the VIP pool %s of network %q, where only virtual addresses live", a, PoolsText(d), name)
					return
				}
			}
		}
		if c.Yielded() {
			err = control.Refuse(control.CodeRefused, "stop this daemon and start it with another --node",
				"another live node has the name %q; this one publishes nothing", api.r.cfg.Self)
			return
		}
		err = admitPin(c, p, def)
	})
	if err = errors.Join(doErr, err); err != nil {
		return err
	}
	return api.admitAgainstView(p)
}

// admitAgainstView refuses a task whose id or address another node's task has.
func (api *TaskAPI) admitAgainstView(p *control.ParsedTask) error {
	v := api.r.source().View(p.Network)
	if v == nil {
		return nil
	}
	if e := v.Task(p.Endpoint.ID); e != nil && e.Owner() != api.r.cfg.Self {
		return control.Refuse(control.CodeConflict, "choose another --id",
			"id: %q is already a task of node %q in network %q", p.Endpoint.ID, e.Owner(), p.Network)
	}
	for _, a := range []netip.Addr{p.Endpoint.IP4, p.Endpoint.IP6} {
		if !a.IsValid() {
			continue
		}
		if e := v.ByIP(a).Endpoint; e != nil && e.Owner() != api.r.cfg.Self {
			return control.Refuse(control.CodeConflict, "give every task an address of its own",
				"ips: %s is already the address of task %q of node %q in network %q", a, e.ID(), e.Owner(), p.Network)
		}
	}
	return nil
}

// find returns the network and the record of a task of this node.
func (api *TaskAPI) find(s *Snapshot, ref control.TaskRef) (network string, t *savedTask, err error) {
	var in []string
	for _, name := range slices.Sorted(maps.Keys(s.networks)) {
		if s.networks[name].tasks.has(ref.ID) && (ref.Network == "" || ref.Network == name) {
			in = append(in, name)
		}
	}
	switch len(in) {
	case 1:
		return in[0], s.networks[in[0]].tasks.at(ref.ID), nil
	case 0:
		return "", t, api.notHere(ref)
	}
	return "", t, control.Refuse(control.CodeConflict, "say which with --network", "task %q is in the networks %s", ref.ID,
		strings.Join(in, ", "))
}

// notHere is the error about a task that is not of this node. It names the owner.
func (api *TaskAPI) notHere(ref control.TaskRef) error {
	names, _ := api.r.source().Networks()
	for _, name := range names {
		m := api.r.source().View(name).Lookup(ref.ID)
		if m.Kind == state.MatchEndpoint && m.Endpoints[0].ID() == ref.ID && (ref.Network == "" || ref.Network == name) {
			return control.Refuse(control.CodeRefused, "do it there: only its owner may change it", "task %q belongs to node %q",
				ref.ID, m.Endpoints[0].Owner())
		}
	}
	return control.Refuse(control.CodeNotFound, "meshctl task ls lists the tasks of this node", "task %q is not known",
		ref.ID)
}
