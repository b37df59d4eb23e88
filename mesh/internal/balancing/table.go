package balancing

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"meshd/lb"
	"meshd/mesh/control"
	"meshd/state"
)

// balancerOf returns the balancer of a sandbox, or the host's for "".
func (h *Host) balancerOf(sandbox string) (*lb.Balancer, error) {
	if b := h.balancers.get(sandbox); b != nil {
		return b, nil
	}
	return nil, control.Refuse(control.CodeNotFound, "", "no sandbox %q with a load balancer on this node", sandbox)
}

// LB implements control.ServiceBackend.
func (h *Host) LB(ctx context.Context, req control.LBRequest) (control.LBTable, error) {
	if err := h.cfg.Known(ctx, req.Network); err != nil {
		return control.LBTable{}, err
	}
	b, err := h.balancerOf(req.Sandbox)
	if err != nil {
		return control.LBTable{}, err
	}
	t, err := h.table(ctx, b, req.Network)
	t.Sandbox = req.Sandbox
	if req.Service != "" {
		t.Services = slices.DeleteFunc(t.Services, func(s control.LBService) bool { return s.Service != req.Service })
	}
	return t, err
}

// table describes the host's balancer or a sandbox's, in one network or in
// all.
func (h *Host) table(ctx context.Context, b *lb.Balancer, network string) (control.LBTable, error) {
	s, err := b.Status(ctx)
	if err != nil {
		return control.LBTable{}, err
	}
	usage, err := b.Usage(ctx)
	if err != nil && ctx.Err() != nil {
		return control.LBTable{}, err
	}
	t := control.LBTable{
		Driver: orNone(s.Driver), Why: lbReason(h.cfg.Choice, &s),
		InSync:    s.Driver != "" && s.Ready && s.Counters.Pending == 0,
		LastApply: s.Counters.LastApplyAt, LastError: s.Error, Pending: s.Counters.Pending, Draining: s.Counters.Draining,
		Services: []control.LBService{},
	}
	if err != nil && t.LastError == "" {
		t.LastError = "counters: " + err.Error()
	}
	if latest, _ := b.LastReport(); latest != nil {
		t.LastVerify = reportOf("", latest)
		t.LastVerify.Differences = []control.LBDifference{}
	}
	for i := range s.Services {
		one := &s.Services[i]
		if one.State != lb.EntryOK && one.State != lb.EntryDraining {
			t.InSync = false
		}
		if network == "" || one.Network == network {
			t.Services = append(t.Services, h.serviceOf(one, usage))
		}
	}
	return t, nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (h *Host) serviceOf(s *lb.ServiceStatus, usage map[lb.Key]lb.Usage) control.LBService {
	out := control.LBService{
		Network: s.Network, Service: s.Name, VIP: s.Key.VIP, Port: portOf(s.Key), State: string(s.State), Error: s.Error,
		Counters: control.NoCounters(), Backends: []control.LBBackend{},
	}
	for _, one := range []*lb.Service{s.Actual, s.Desired} {
		if one != nil {
			out.Scheduler = one.Scheduler
		}
	}
	out.RunsAs = s.RunsAs
	u, counted := usage[s.Key]
	if counted {
		out.Counters = countersOf(u.Traffic)
		out.Counters.Active = 0
	}
	for _, b := range s.Backends {
		one := h.backendOf(s, b)
		if bu, ok := u.Backends[b.Addr]; ok {
			one.Counters = countersOf(bu.Traffic)
			one.Counters.Active = int64(bu.Active)
			out.Counters.Active += int64(bu.Active)
		} else if counted && b.Actual >= 0 {
			one.Counters.Active = 0
		}
		out.Backends = append(out.Backends, one)
	}
	return out
}

func portOf(k lb.Key) string {
	if k.AllPorts() {
		return "all/" + k.Proto.String()
	}
	return fmt.Sprintf("%d/%s", k.Port, k.Proto)
}

func (h *Host) backendOf(s *lb.ServiceStatus, from lb.BackendStatus) control.LBBackend {
	b := control.LBBackend{
		Address: from.Addr, Desired: from.Desired, Actual: from.Actual, State: string(from.State), Until: from.Deadline,
		Counters: control.NoCounters(),
	}
	if e := taskAt(h.cfg.Source, s, from.Addr); e != nil {
		task := e.Endpoint()
		b.Task, b.TaskName, b.Node = e.ID(), task.TaskName(), string(e.Owner())
	}
	return b
}

// taskAt returns the task behind a backend of a service: the one that listens there. If
// none does, as of a port that changed, it is the only one of the service that has the
// address, or whoever has it; nil: that is not known.
func taskAt(source state.Source, s *lb.ServiceStatus, at netip.AddrPort) *state.Entry {
	v := source.View(s.Network)
	if v == nil {
		return nil
	}
	svc := v.Service(s.Name)
	if svc == nil {
		return v.ByIP(at.Addr()).Endpoint
	}
	var there []*state.Entry
	for _, m := range svc.Members.All() {
		if m.Addr4() != at.Addr() && m.Addr6() != at.Addr() {
			continue
		}
		if lb.Listens(m, s.Key, at.Port()) {
			return m
		}
		there = append(there, m)
	}
	switch len(there) {
	case 0:
		return v.ByIP(at.Addr()).Endpoint
	case 1:
		return there[0]
	}
	return nil
}

// countersOf returns what was counted; connections that are open are not in it.
func countersOf(t lb.Traffic) control.Counters {
	return control.Counters{
		Active: -1, Connections: t.Connections,
		PacketsIn: t.PacketsIn, PacketsOut: t.PacketsOut, BytesIn: t.BytesIn, BytesOut: t.BytesOut,
	}
}
