package mesh

import (
	"context"
	"slices"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// SetService implements control.ServiceBackend. The settings are those of the
// highest Lamport time among the nodes that host the service (S8), so only such
// a node can change them.
func (n *Node) SetService(ctx context.Context, ref control.ServiceRef, req control.SetService) (control.Service,
	error,
) {
	s, err := n.service(ctx, ref)
	if err != nil {
		return control.Service{}, err
	}
	want, err := req.Apply(s.Settings)
	if err != nil {
		return control.Service{}, err
	}
	if err := n.setService(ctx, ref, req, &want); err != nil {
		return control.Service{}, err
	}
	return n.settingsShown(ctx, ref, want)
}

func (n *Node) setService(ctx context.Context, ref control.ServiceRef, req control.SetService,
	want *state.Settings,
) error {
	return n.reg.change(ctx, &update{
		network: ref.Network, service: ref.Name,
		edit: func(d *draft) error {
			if d.networks[ref.Network].tasksOf(ref.Name) == 0 {
				return n.hostedElsewhere(ref)
			}
			return nil
		},
		prepare: func(c *gossip.Core, _ time.Duration) (bool, error) {
			t := c.Store().Table(ref.Network)
			if t == nil {
				return false, gossip.ErrNoNetwork
			}
			if have, ok := t.Settings(ref.Name); ok { // newer than the view
				next, err := req.Apply(have.Settings)
				if err != nil {
					return false, err
				}
				*want = next
			}
			tasks := n.reg.registry().networks[ref.Network].tasksOf(ref.Name)
			c.Host(ref.Network, ref.Name, state.Hosting{Tasks: tasks, Settings: want})
			return true, nil
		},
	})
}

// hostedElsewhere says where the settings of a service can be changed.
func (n *Node) hostedElsewhere(ref control.ServiceRef) error {
	var nodes []string
	if s := n.host.Source().View(ref.Network).Service(ref.Name); s != nil {
		for _, e := range s.Members {
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

// settingsShown waits a moment until the service shows the settings.
func (n *Node) settingsShown(ctx context.Context, ref control.ServiceRef, want state.Settings) (control.Service,
	error,
) {
	wait, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	v := n.host.Source().View(ref.Network)
	sub := v.Subscribe()
	defer sub.Close()
	for {
		s := v.Service(ref.Name)
		if s != nil && (s.Settings == want || wait.Err() != nil) {
			return n.describeService(s), nil
		}
		if s == nil && wait.Err() != nil {
			_, err := n.service(ctx, ref)
			return control.Service{}, err
		}
		select {
		case <-sub.Ready():
			sub.Drain()
		case <-wait.Done():
		}
	}
}
