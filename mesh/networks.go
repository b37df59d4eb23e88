package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/lb"
	"meshd/mesh/control"
	"meshd/state"
)

// Networks implements control.NetworkBackend.
func (n *Node) Networks(ctx context.Context) ([]control.Network, error) {
	var names []string
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		names = slices.Sorted(maps.Keys(c.Store().Defs()))
		joined, _ := c.Store().Networks()
		for _, j := range joined {
			if !slices.Contains(names, j) {
				names = append(names, j)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	out := []control.Network{}
	for _, name := range names {
		d, err := n.describeNetwork(ctx, name)
		if errors.Is(err, control.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (n *Node) describeNetwork(ctx context.Context, name string) (control.Network, error) {
	d, err := n.Network(ctx, name)
	return d.Network, err
}

// Network implements control.NetworkBackend.
func (n *Node) Network(ctx context.Context, name string) (control.NetworkDetail, error) {
	d := control.NetworkDetail{
		Network: control.Network{Name: name, Nodes: []string{}}, Streams: []control.Stream{},
		ServiceList: []control.Service{}, Warnings: []string{},
	}
	known := false
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		def, defined := c.Store().Defs()[name]
		t := c.Store().Table(name)
		if known = defined || t != nil; !known {
			return
		}
		d.Subnet, d.Subnet6, d.Birth = def.Subnet4, def.Subnet6, def.Birth
		for _, p := range c.Store().Participants(name) {
			d.Nodes = append(d.Nodes, string(p))
		}
		if !defined {
			d.Warnings = append(d.Warnings,
				"no node states the definition of this network: services get no VIP; create it again")
		}
		d.Conflict = networkTrouble(c.Store().Definitions(), name)
		if t != nil {
			d.Joined = true
			d.Checksum = hex16(t.Checksum())
			d.VIPsUsed = int(t.ClaimedVIPs())
			d.Streams = streams(c, t)
		}
	})
	if err != nil {
		return d, err
	}
	if !known {
		return d, noNetwork(name)
	}
	if v := n.host.Source().View(name); v != nil {
		n.fillNetwork(&d, v)
	}
	if against := n.balancer.Refused()[name]; len(against) > 0 {
		text := "not served here: " + lb.FormatConflicts(against)
		d.Warnings = append(d.Warnings, text+"; vip services are answered with their tasks")
		d.Conflict = strings.TrimPrefix(d.Conflict+"; "+text, "; ")
	}
	return d, nil
}

func (n *Node) fillNetwork(d *control.NetworkDetail, v state.View) {
	d.Synced = v.Synced()
	for _, s := range v.Services() {
		d.Services++
		d.Tasks += len(s.Members)
		d.ServiceList = append(d.ServiceList, n.describeService(s))
	}
	if def, used := v.Def(), uint64(d.VIPsUsed); def.Subnet4.IsValid() {
		d.VIPsFree = max(state.PoolSize(&def), used) - used
	}
}

func streams(c *gossip.Core, t *state.Table) []control.Stream {
	states := map[state.NodeID]string{c.Config().Self: control.NodeAlive}
	for _, m := range c.Members() {
		states[m.ID] = m.State
	}
	out := []control.Stream{}
	for _, o := range t.Owners() {
		h, _ := t.Head(o)
		s := states[o]
		if s == "" {
			s = control.NodeDead
		}
		out = append(out, control.Stream{
			Owner: string(o), Incarnation: h.Inc, Version: h.Version, Floor: h.Floor,
			Entries: t.OwnerLen(o), State: s,
		})
	}
	return out
}

func hex16(v uint64) string { return fmt.Sprintf("%016x", v) }

// RemoveNetwork implements control.NetworkBackend.
func (n *Node) RemoveNetwork(ctx context.Context, name string) error {
	if err := n.defining.take(ctx); err != nil {
		return err
	}
	defer n.defining.give()
	var r removedNetwork
	var refused error
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		def, ok := c.Store().Defs()[name]
		if !ok {
			refused = noNetwork(name)
			return
		}
		if refused = networkInUse(c, name); refused == nil {
			r = removedNetwork{
				name: name, birth: def.Birth, lamport: c.Store().Clock().Tick(), def: *newNetworkDef(def),
				until: time.Now().Add(removalMemory),
			}
		}
	})
	if err = errors.Join(err, refused); err != nil {
		return err
	}
	return n.reg.change(ctx, &update{
		edit: func(d *draft) error {
			l := d.networks[name]
			if l != nil && l.sandboxes > 0 {
				return control.Refuse(control.CodeRefused, "detach them first; meshctl sandbox ls lists them",
					"network %q is used by %d sandboxes", name, l.sandboxes)
			}
			if l != nil && len(l.tasks) > 0 { // registered meanwhile
				return control.Refuse(control.CodeRefused, "remove its tasks first; meshctl task ls --network "+name+" lists them",
					"network %q is used: this node has %d tasks in it", name, len(l.tasks))
			}
			d.dropNetwork(name)
			d.remember(r, n.current().bounds().removed)
			return nil
		},
		prepare: func(c *gossip.Core, now time.Duration) (bool, error) {
			if slices.Contains(n.cfg.Networks, name) {
				return false, nil
			}
			return false, c.LeaveNetwork(now, name)
		},
		changes: (&registry{removed: []removedNetwork{r}}).globals(),
	})
}

// networkInUse refuses the removal of a network with tasks, those of nodes that
// are away included, or of one of which this node cannot know.
func networkInUse(c *gossip.Core, name string) error {
	t := c.Store().Table(name)
	if t == nil {
		if ps := c.Store().Participants(name); len(ps) > 0 {
			return control.Refuse(control.CodeRefused, fmt.Sprintf("run it on one of them, for example on %s", ps[0]),
				"network %q is not carried by this node, but by %s", name, some(ps))
		}
		return nil
	}
	tasks, first := 0, (*state.Entry)(nil)
	away := map[state.NodeID]bool{}
	t.Walk(func(e *state.Entry) bool {
		if e.Kind() != state.KindEndpoint {
			return true
		}
		if tasks++; first == nil {
			first = e
		}
		if c.Store().Liveness(e.Owner()) == state.Dead {
			away[e.Owner()] = true
		}
		return true
	})
	if tasks == 0 {
		return nil
	}
	hint := "remove its tasks first; meshctl task ls --all --network " + name + " lists them"
	if len(away) > 0 {
		hint += "; tasks of nodes that are away count until they are forgotten, and theirs are " +
			some(slices.Sorted(maps.Keys(away)))
	}
	return control.Refuse(control.CodeRefused, hint,
		"network %q is used: %d tasks, for example %q of service %q on node %q", name, tasks, first.ID(), first.Group(),
		first.Owner())
}

// some names a few of many.
func some[T ~string](all []T) string {
	const most = 5
	var text []string
	for _, x := range all[:min(len(all), most)] {
		text = append(text, string(x))
	}
	if more := len(all) - most; more > 0 {
		text = append(text, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(text, ", ")
}
