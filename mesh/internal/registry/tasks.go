package registry

import (
	"context"
	"crypto/rand"
	"net/netip"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// AddTask implements control.TaskBackend. The registration is on disk before it is
// stated, so what a client has been answered survives a crash (N2).
func (api *TaskAPI) AddTask(ctx context.Context, req control.AddTask) (control.TaskAdded, error) {
	return api.Register(ctx, req, nil)
}

// Register is AddTask for a task that may take the place of others, by id: they do
// not count as programs that listen at its address (N5).
func (api *TaskAPI) Register(ctx context.Context, req control.AddTask, replaces map[string]bool) (
	control.TaskAdded, error,
) {
	p, err := req.Parse()
	if err != nil {
		return control.TaskAdded{}, err
	}
	if p.Endpoint.ID == "" {
		p.Endpoint.ID = NewID()
	}
	if err := p.Endpoint.Validate(); err != nil {
		return control.TaskAdded{}, err
	}
	if err := api.addTask(ctx, &p, replaces); err != nil {
		return control.TaskAdded{}, err
	}
	return api.taskAdded(ctx, &p)
}

// NewID returns 25 random characters, as Swarm's task ids.
func NewID() string { return strings.ToLower(rand.Text())[:25] }

func (api *TaskAPI) addTask(ctx context.Context, p *control.ParsedTask, replaces map[string]bool) error {
	if len(p.VIPs) > 0 { // two requests for one address must see each other's claim
		if err := api.r.pinning.take(ctx); err != nil {
			return err
		}
		defer api.r.pinning.give()
	}
	if err := api.admitTask(ctx, p, replaces); err != nil {
		return err
	}
	id, service := p.Endpoint.ID, p.Endpoint.Service
	task := &savedTask{Service: service, Body: state.AppendEndpoint(nil, &p.Endpoint)}
	return quota(api.r.change(ctx, &update{
		network: p.Network, service: service, changes: []state.Change{task.change(id)},
		edit: func(d *draft) error {
			if err := api.admitRegistered(&d.Snapshot, p, replaces); err != nil {
				return err
			}
			d.setTask(p.Network, id, task)
			return nil
		},
		prepare: func(c Core) (bool, error) {
			if err := joinNetwork(c, p.Network); err != nil {
				return false, err
			}
			h := api.hosting(c, p, api.r.Snapshot().networks[p.Network])
			c.Host(p.Network, service, h)
			return h.Settings != nil || h.PinVIP.IsValid(), nil
		},
		undo: func(d *draft) { d.forgetTask(p.Network, id) },
	}))
}

// taskAdded waits up to 4 s until the service has its VIP, and describes the result.
func (api *TaskAPI) taskAdded(ctx context.Context, p *control.ParsedTask) (control.TaskAdded, error) {
	wait, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	v := api.r.source().View(p.Network)
	sub := v.Subscribe()
	defer sub.Close()
	for {
		s := v.Service(p.Endpoint.Service)
		if def := v.Def(); servesTask(&def, s, p.Endpoint.ID) || wait.Err() != nil {
			out := api.describeAdded(p, s)
			out.Warnings = append(out.Warnings, api.oddAddresses(ctx, p)...)
			out.Warnings = append(out.Warnings, api.targetWarnings(ctx, p, s)...)
			return out, nil
		}
		select {
		case <-sub.Ready():
			sub.Drain()
		case <-wait.Done():
		}
	}
}

// servesTask reports whether the service shows the task, and has its address or a reason
// why it has none.
func servesTask(def *state.NetworkDef, s *state.Service, id string) bool {
	if s == nil || !s.Members.Contain(func(e *state.Entry) bool { return e.ID() == id }) {
		return false
	}
	return s.Mode == state.ModeDNSRR || s.VIP4.IsValid() || s.VIP6.IsValid() ||
		strings.Contains(s.Conflict, "exhausted") || withoutFamily(def, s) != ""
}

func (api *TaskAPI) describeAdded(p *control.ParsedTask, s *state.Service) control.TaskAdded {
	p.Endpoint.Owner = api.r.cfg.Self
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
	if d := api.r.degraded(s); d != "" {
		out.Warnings = append(out.Warnings, d)
		out.Mode = state.ModeDNSRR.String()
	}
	def := api.r.defOf(s.Network)
	out.Warnings = append(out.Warnings, familyWarnings(&def, s, &p.Endpoint)...)
	if s.Mode == state.ModeVIP && len(cs.VIPs) == 0 && s.Conflict == "" && withoutFamily(&def, s) == "" {
		out.Warnings = append(out.Warnings, "no VIP yet: the network is not synced; it is claimed as soon as it is")
	}
	return out
}

// RemoveTask implements control.TaskBackend.
func (api *TaskAPI) RemoveTask(ctx context.Context, ref control.TaskRef) (control.Task, error) {
	u := &update{}
	var e state.Endpoint
	u.edit = func(d *draft) error {
		network, t, err := api.find(&d.Snapshot, ref)
		if err == nil {
			err = t.ownedElsewhere(ref.ID)
		}
		if err != nil {
			return err
		}
		e, _ = t.endpoint(ref.ID)
		d.removeTask(network, ref.ID, time.Now().Add(api.r.cfg.Bounds().Reservation))
		u.network, u.service = network, t.Service
		u.changes = []state.Change{{Kind: state.KindEndpoint, Key: ref.ID, Delete: true}}
		return nil
	}
	u.prepare = func(c Core) (bool, error) {
		if l := api.r.Snapshot().networks[u.network]; l != nil {
			hostService(c, u.network, u.service, l)
		}
		return false, nil
	}
	if err := api.r.change(ctx, u); err != nil {
		return control.Task{}, err
	}
	e.Owner = api.r.cfg.Self
	return control.FromEndpoint(u.network, e, state.Hidden), nil
}

// DrainTask implements control.TaskBackend.
func (api *TaskAPI) DrainTask(ctx context.Context, ref control.TaskRef) (control.Task, error) {
	u := &update{}
	var e state.Endpoint
	u.edit = func(d *draft) error {
		network, t, err := api.find(&d.Snapshot, ref)
		if err == nil {
			err = t.ownedElsewhere(ref.ID)
		}
		if err != nil {
			return err
		}
		if t, e, err = t.draining(ref.ID); err != nil {
			return err
		}
		d.setTask(network, ref.ID, t)
		u.network, u.service, u.changes = network, t.Service, []state.Change{t.change(ref.ID)}
		return nil
	}
	if err := api.r.change(ctx, u); err != nil {
		return control.Task{}, err
	}
	e.Owner = api.r.cfg.Self
	return control.FromEndpoint(u.network, e, state.Draining), nil
}

// Tasks implements control.TaskBackend.
func (api *TaskAPI) Tasks(ctx context.Context, f control.TaskFilter) ([]control.Task, error) {
	if err := api.r.Known(ctx, f.Network); err != nil {
		return nil, err
	}
	out, snapshot := []control.Task{}, api.r.Snapshot()
	names, _ := api.r.source().Networks()
	for _, name := range names {
		if f.Network != "" && f.Network != name {
			continue
		}
		for _, s := range api.r.source().View(name).Services() {
			if f.Service != "" && f.Service != s.Name {
				continue
			}
			for _, t := range control.FromMembers(s) {
				if t.Node == string(api.r.cfg.Self) {
					t.Origin = snapshot.originOf(name, t.ID)
				}
				if f.All || t.Node == string(api.r.cfg.Self) {
					out = append(out, t)
				}
			}
		}
	}
	control.SortTasks(out)
	return out, nil
}
