package registry

import (
	"context"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// SetService implements control.ServiceBackend. A service has the settings of the
// highest Lamport time among the nodes that host it (S8), so only a node that hosts it
// can change them.
func (api *ServiceAPI) SetService(ctx context.Context, ref control.ServiceRef, req control.SetService) (control.Service,
	error,
) {
	s, err := api.service(ctx, ref)
	if err != nil {
		return control.Service{}, err
	}
	want, err := req.Apply(s.Settings)
	if err != nil {
		return control.Service{}, err
	}
	if err := api.setService(ctx, ref, req, &want); err != nil {
		return control.Service{}, err
	}
	return api.settingsShown(ctx, ref, want)
}

func (api *ServiceAPI) setService(ctx context.Context, ref control.ServiceRef, req control.SetService,
	want *state.Settings,
) error {
	return api.r.change(ctx, &update{
		network: ref.Network, service: ref.Name,
		edit: func(d *draft) error {
			if d.networks[ref.Network].tasksOf(ref.Name) == 0 {
				return api.hostedElsewhere(ref)
			}
			return nil
		},
		prepare: func(c Core) (bool, error) {
			t := c.Store().Table(ref.Network)
			if t == nil {
				return false, ErrNoNetwork
			}
			if have, ok := t.Settings(ref.Name); ok { // newer than the view
				next, err := req.Apply(have.Settings)
				if err != nil {
					return false, err
				}
				*want = next
			}
			tasks := api.r.Snapshot().networks[ref.Network].tasksOf(ref.Name)
			c.Host(ref.Network, ref.Name, state.Hosting{Tasks: tasks, Settings: want})
			return true, nil
		},
	})
}

// hostedElsewhere is the error that names the nodes where the settings can be changed.
func (api *ServiceAPI) hostedElsewhere(ref control.ServiceRef) error {
	var nodes []string
	if s := api.r.source().View(ref.Network).Service(ref.Name); s != nil {
		for _, e := range s.Members.All() {
			nodes = append(nodes, string(e.Owner()))
		}
	}
	slices.Sort(nodes)
	hint := "add a task first"
	if nodes = slices.Compact(nodes); len(nodes) > 0 {
		hint = "do it on one of: " + strings.Join(nodes, ", ")
	}
	return control.Refuse(control.CodeRefused, hint,
		"this node has no task of service %q in network %q; a service's settings are stated by those that have", ref.Name,
		ref.Network)
}

// settingsShown waits up to 2 s until the service shows the settings.
func (api *ServiceAPI) settingsShown(ctx context.Context, ref control.ServiceRef, want state.Settings) (control.Service,
	error,
) {
	wait, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	v := api.r.source().View(ref.Network)
	sub := v.Subscribe()
	defer sub.Close()
	for {
		s := v.Service(ref.Name)
		if s != nil && (s.Settings == want || wait.Err() != nil) {
			return api.r.describeService(s), nil
		}
		if s == nil && wait.Err() != nil {
			_, err := api.service(ctx, ref)
			return control.Service{}, err
		}
		select {
		case <-sub.Ready():
			sub.Drain()
		case <-wait.Done():
		}
	}
}
