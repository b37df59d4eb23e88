package mesh

import (
	"context"
	"errors"
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
func (n *Node) SetService(ctx context.Context, ref control.ServiceRef, req control.SetService) (control.Service, error) {
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

func (n *Node) setService(ctx context.Context, ref control.ServiceRef, req control.SetService, want *state.Settings) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.reg.network(ref.Network)
	tasks := l.tasksOf(ref.Name)
	if tasks == 0 {
		return n.hostedElsewhere(ref)
	}
	var failed error
	err := n.host.Do(ctx, func(c *gossip.Core, now time.Duration) {
		if have, ok := c.Store().Table(ref.Network).Settings(ref.Name); ok { // newer than the view
			*want, failed = req.Apply(have.Settings)
		}
		c.Host(ref.Network, ref.Name, state.Hosting{Tasks: tasks, Settings: want})
		failed = errors.Join(failed, c.Commit(now, ref.Network, nil))
	})
	return errors.Join(err, failed)
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
	return control.Refuse(control.CodeRefused, hint, "this node has no task of service %q in network %q; a service's settings are stated by those that have (S8)", ref.Name, ref.Network)
}

// settingsShown waits a moment until the service shows the settings.
func (n *Node) settingsShown(ctx context.Context, ref control.ServiceRef, want state.Settings) (control.Service, error) {
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
