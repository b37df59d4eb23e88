package registry

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"meshd/mesh/control"
	"meshd/state"
)

// CreateNetwork implements control.NetworkBackend. If the definition is in effect
// here already, conflicts of other hosts with it are in the reply and are no error.
func (api *NetworkAPI) CreateNetwork(ctx context.Context, req control.CreateNetwork) (control.Network, error) {
	def, err := req.Parse()
	if err == nil {
		err = def.Validate()
	}
	if err != nil {
		return control.Network{}, err
	}
	if err := api.r.defining.take(ctx); err != nil { // two that overlap must see each other
		return control.Network{}, err
	}
	defer api.r.defining.give()
	var is definitionStatus
	var refused error
	err = api.r.do(ctx, func(c Core) {
		if is, refused = admitNetwork(c, &def); refused == nil && def.Birth == 0 {
			def.Birth = c.Store().Clock().Tick()
		}
	})
	if err = errors.Join(err, refused); err != nil {
		return control.Network{}, err
	}
	api.r.proposed.begin(def)
	defer api.r.proposed.end()
	against, silent, err := api.admitPools(ctx, &def, is)
	if err != nil {
		return control.Network{}, err
	}
	if err := api.define(ctx, def); err != nil {
		return control.Network{}, err
	}
	d, err := api.describeNetwork(ctx, def.Name)
	d.Against, d.Silent = against, silent
	return d, err
}

// admitPools asks this host and the other nodes for conflicts with a definition. If it
// is not in effect yet, a conflict refuses it; else the conflicts are returned, with
// the nodes that did not answer.
func (api *NetworkAPI) admitPools(ctx context.Context, def *state.NetworkDef, is definitionStatus) (
	against, silent []string, err error,
) {
	if is == inEffect {
		return api.askPools(ctx, def, true)
	}
	const fix = "choose a pool that no host of the mesh uses; ip address and ip route show what a host uses, and " +
		"meshctl network ls the networks"
	if text := api.r.cfg.Balancing.AgainstPools(newPoolsCall(def, false).Pools); text != "" {
		return nil, nil, control.Refuse(control.CodeConflict, fix, "subnet: this host cannot serve %s", text)
	}
	against, silent, err = api.askPools(ctx, def, is == disputed)
	if err != nil {
		return nil, nil, err
	}
	if older := api.r.proposed.finish(); older != "" {
		against = append(against, older)
	}
	if len(against) > 0 {
		return nil, nil, control.Refuse(control.CodeConflict, fix, "subnet: %s", strings.Join(against, "; "))
	}
	return nil, silent, nil
}

// define states a definition that a person asked for, and takes part in the network.
func (api *NetworkAPI) define(ctx context.Context, def state.NetworkDef) error {
	var old *networkDef
	return api.r.change(ctx, &update{
		changes: []state.Change{networkChange(state.NetworkClaim{NetworkDef: def, Pinned: true})},
		edit: func(d *draft) error {
			if l := d.networks[def.Name]; l != nil {
				old = l.def
			} else if err := api.r.cfg.Bounds().room(&d.Snapshot, 1, 0, 0); err != nil {
				return err
			}
			d.setDef(def.Name, newNetworkDef(def))
			return nil
		},
		prepare: func(c Core) (bool, error) { return false, joinNetwork(c, def.Name) },
		undo:    func(d *draft) { d.setDef(def.Name, old) },
	})
}

// joinNetwork takes part in a network. Its error says what to do instead.
func joinNetwork(c Core, name string) error {
	err := c.JoinNetwork(name)
	if errors.Is(err, ErrNameTaken) {
		return control.Refuse(control.CodeConflict, "choose another name for the network", "%v", err)
	}
	return err
}

// definitionStatus is how this node knows a definition that a person is about to state.
type definitionStatus int

const (
	unknown  definitionStatus = iota // no network of that name is known
	disputed                         // a node states it, but another one is in effect here (V6)
	inEffect                         // this node uses it
)

// admitNetwork refuses a definition that excludes another one. A definition that is
// known gets its birth.
func admitNetwork(c Core, def *state.NetworkDef) (definitionStatus, error) {
	defs := c.Store().Defs()
	if have, ok := defs[def.Name]; ok {
		if !excludes(&have, def) {
			def.Birth = have.Birth
			return inEffect, nil
		}
		for _, d := range c.Store().Disputes()[def.Name] {
			if !excludes(&d, def) {
				def.Birth = d.Birth // a person decides: this one shall be in effect here
				return disputed, nil
			}
		}
		return unknown, control.Refuse(control.CodeConflict, "use that definition, or another name",
			"network %q exists with the pool %s", def.Name, PoolsText(have))
	}
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		if o := defs[name]; def.Overlaps(&o) {
			return unknown, control.Refuse(control.CodeConflict,
				"choose a pool that overlaps no other; meshctl network ls shows them", "subnet: %s overlaps %s of network %q",
				PoolsText(*def), PoolsText(o), name)
		}
	}
	joined, _ := c.Store().Networks()
	for _, name := range joined {
		if e := taskIn(c.Store().View(name), def); e != nil {
			return unknown, control.Refuse(control.CodeConflict, "choose a pool that holds no task address",
				"subnet: task %q of network %q has an address in %s, where only virtual addresses may live", e.ID(), name,
				PoolsText(*def))
		}
	}
	return unknown, nil
}

// taskIn returns a task whose address is in the definition's pools.
func taskIn(v state.View, def *state.NetworkDef) *state.Entry {
	if v == nil {
		return nil
	}
	for _, s := range v.Services() {
		for _, e := range s.Members.All() {
			if a := e.Addr4(); a.IsValid() && def.Contains(a) {
				return e
			}
			if a := e.Addr6(); a.IsValid() && def.Contains(a) {
				return e
			}
		}
	}
	return nil
}
