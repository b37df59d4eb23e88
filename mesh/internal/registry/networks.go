package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// Networks implements control.NetworkBackend.
func (api *NetworkAPI) Networks(ctx context.Context) ([]control.Network, error) {
	var names []string
	err := api.r.do(ctx, func(c Core) {
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
		d, err := api.describeNetwork(ctx, name)
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

func (api *NetworkAPI) describeNetwork(ctx context.Context, name string) (control.Network, error) {
	d, err := api.Network(ctx, name)
	return d.Network, err
}

// Network implements control.NetworkBackend.
func (api *NetworkAPI) Network(ctx context.Context, name string) (control.NetworkDetail, error) {
	d := control.NetworkDetail{
		Network: control.Network{Name: name, Nodes: []string{}}, Streams: []control.Stream{},
		ServiceList: []control.Service{}, Warnings: []string{},
	}
	known := false
	err := api.r.do(ctx, func(c Core) {
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
			d.Checksum = control.ChecksumText(t.Checksum())
			d.VIPsUsed = int(t.ClaimedVIPs())
			d.Streams = streams(c, t)
		}
	})
	if err != nil {
		return d, err
	}
	if !known {
		return d, NoNetwork(name)
	}
	if v := api.r.source().View(name); v != nil {
		api.fillNetwork(&d, v)
	}
	if against := api.r.cfg.Balancing.WhyNoVIPs(name); against != "" {
		text := "not served here: " + against
		d.Warnings = append(d.Warnings, text+"; vip services are answered with their tasks")
		d.Conflict = strings.TrimPrefix(d.Conflict+"; "+text, "; ")
	}
	return d, nil
}

func (api *NetworkAPI) fillNetwork(d *control.NetworkDetail, v state.View) {
	d.Synced = v.Synced()
	for _, s := range v.Services() {
		d.Services++
		d.Tasks += s.Members.Len()
		d.ServiceList = append(d.ServiceList, api.r.describeService(s))
	}
	if def, used := v.Def(), uint64(d.VIPsUsed); def.Subnet4.IsValid() {
		d.VIPsFree = max(state.PoolSize(&def), used) - used
	}
}

func streams(c Core, t *state.Table) []control.Stream {
	states := c.MemberStates()
	states[c.Store().Self()] = control.NodeAlive
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

// RemoveNetwork implements control.NetworkBackend.
func (api *NetworkAPI) RemoveNetwork(ctx context.Context, name string) error {
	if err := api.r.defining.take(ctx); err != nil {
		return err
	}
	defer api.r.defining.give()
	var r removedNetwork
	var refused error
	err := api.r.do(ctx, func(c Core) {
		def, ok := c.Store().Defs()[name]
		if !ok {
			refused = NoNetwork(name)
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
	return api.r.change(ctx, &update{
		edit: func(d *draft) error {
			l := d.networks[name]
			if l != nil && l.sandboxes > 0 {
				return control.Refuse(control.CodeRefused, "detach them first; meshctl sandbox ls lists them",
					"network %q is used by %d sandboxes", name, l.sandboxes)
			}
			if l != nil && l.tasks.len() > 0 { // registered since the check above
				return control.Refuse(control.CodeRefused, "remove its tasks first; meshctl task ls --network "+name+" lists them",
					"network %q is used: this node has %d tasks in it", name, l.tasks.len())
			}
			d.dropNetwork(name)
			d.remember(r, api.r.cfg.Bounds().Removed)
			return nil
		},
		prepare: func(c Core) (bool, error) {
			if slices.Contains(api.r.cfg.KeepNetworks, name) {
				return false, nil
			}
			return false, c.LeaveNetwork(name)
		},
		changes: (&Snapshot{removed: []removedNetwork{r}}).globals(),
	})
}

// networkInUse refuses the removal of a network with tasks, including tasks of nodes
// that are away (N6), and of a network whose table this node does not carry.
func networkInUse(c Core, name string) error {
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

// some names the first of many.
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
