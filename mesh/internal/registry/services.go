package registry

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

func (r *Registry) describeService(s *state.Service) control.Service {
	c := control.FromService(s)
	c.Degraded = r.degraded(s)
	return c
}

// Services implements control.ServiceBackend.
func (api *ServiceAPI) Services(ctx context.Context, network string) ([]control.Service, error) {
	names, _ := api.r.source().Networks()
	if network != "" {
		if _, err := api.r.View(ctx, network); err != nil {
			return nil, err
		}
		names = []string{network}
	}
	out := []control.Service{}
	for _, name := range names {
		v := api.r.source().View(name)
		if v == nil {
			continue
		}
		for _, s := range v.Services() {
			out = append(out, api.r.describeService(s))
		}
	}
	return out, nil
}

func (api *ServiceAPI) service(ctx context.Context, ref control.ServiceRef) (*state.Service, error) {
	v, err := api.r.View(ctx, ref.Network)
	if err != nil {
		return nil, err
	}
	s := v.Service(ref.Name)
	if s == nil {
		return nil, control.Refuse(control.CodeNotFound, "meshctl service ls --network "+ref.Network+" lists them",
			"service %q is not known in network %q", ref.Name, ref.Network)
	}
	return s, nil
}

// Service implements control.ServiceBackend.
func (api *ServiceAPI) Service(ctx context.Context, ref control.ServiceRef) (control.ServiceDetail, error) {
	s, err := api.service(ctx, ref)
	if err != nil {
		return control.ServiceDetail{}, err
	}
	d := control.ServiceDetail{
		Service: api.r.describeService(s), TaskList: control.FromMembers(s), Claims: []control.Claim{},
		Warnings: api.Notes(ref.Network, ref.Name),
	}
	domain := strings.TrimSuffix(api.r.cfg.Domain, ".")
	for _, name := range append([]string{s.Name, "tasks." + s.Name}, s.Aliases...) {
		d.Names = append(d.Names, name, fmt.Sprintf("%s.%s.%s", name, s.Network, domain))
	}
	if d.Warnings == nil {
		d.Warnings = []string{}
	}
	err = api.r.do(ctx, func(c Core) { d.Claims = claims(c.Store().Table(ref.Network), s) })
	return d, err
}

// claims lists the claims on addresses of a service and who carries them, the winner first.
func claims(t *state.Table, s *state.Service) []control.Claim {
	out := []control.Claim{}
	if t == nil {
		return out
	}
	wins := t.Assignment(s.Name).Canonical // also where it is not served (V12)
	for _, o := range t.Owners() {
		for _, e := range t.OwnerEntries(o, state.KindVIP) {
			if e.Key() != s.Name {
				continue
			}
			c, _ := state.ParseVIPClaim(e.Key(), e.Body())
			for _, a := range []netip.Addr{c.VIP4, c.VIP6} {
				if a.IsValid() {
					out = append(out, control.Claim{VIP: a, Node: string(o), Pinned: c.Pinned, Birth: c.Birth, Wins: a == wins.VIP4 ||
						a == wins.VIP6})
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b control.Claim) int {
		switch {
		case a.Wins != b.Wins && a.Wins:
			return -1
		case a.Wins != b.Wins:
			return 1
		}
		return a.VIP.Compare(b.VIP)
	})
	return out
}

// ServiceTasks implements control.ServiceBackend.
func (api *ServiceAPI) ServiceTasks(ctx context.Context, ref control.ServiceRef) ([]control.Task, error) {
	s, err := api.service(ctx, ref)
	if err != nil {
		return nil, err
	}
	return append(control.FromMembers(s), api.r.barredOf(ctx, ref.Network, ref.Name)...), nil
}

// Notes says which tasks of a service are hidden or not served, and why.
func (api *ServiceAPI) Notes(network, service string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	hidden := map[state.NodeID]int{}
	_ = api.r.do(ctx, func(c Core) {
		t := c.Store().Table(network)
		if t == nil {
			return
		}
		for _, o := range t.Owners() {
			if c.Store().Liveness(o) != state.Dead {
				continue
			}
			for _, e := range t.OwnerEntries(o, state.KindEndpoint) {
				if e.Group() == service {
					hidden[o]++
				}
			}
		}
	})
	var out []string
	for _, t := range api.r.barredOf(ctx, network, service) {
		out = append(out, fmt.Sprintf("task %s of node %s is not served: %s", t.ID, t.Node, t.Reason))
	}
	for _, o := range slices.Sorted(maps.Keys(hidden)) {
		out = append(out, fmt.Sprintf("%d hidden because node %s is dead or left", hidden[o], o))
	}
	return out
}

// barredOf returns the tasks of a service that are carried and not served here (S18).
func (r *Registry) barredOf(ctx context.Context, network, service string) []control.Task {
	var out []control.Task
	_ = r.do(ctx, func(c Core) {
		t := c.Store().Table(network)
		if t == nil {
			return
		}
		for _, b := range t.Barred() {
			if b.Endpoint.Group() == service {
				task := control.FromEndpoint(network, b.Endpoint.Endpoint(), state.Hidden)
				task.Reason = b.Reason
				out = append(out, task)
			}
		}
	})
	return out
}
