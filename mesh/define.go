package mesh

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// CreateNetwork implements control.NetworkBackend. A definition that is in
// effect here already is no change: what stands against it is told, and no
// error.
func (n *Node) CreateNetwork(ctx context.Context, req control.CreateNetwork) (control.Network, error) {
	def, err := req.Parse()
	if err == nil {
		err = def.Validate()
	}
	if err != nil {
		return control.Network{}, err
	}
	if err := n.defining.take(ctx); err != nil { // two that overlap must see each other
		return control.Network{}, err
	}
	defer n.defining.give()
	var is standing
	var refused error
	err = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		if is, refused = admitNetwork(c, &def); refused == nil && def.Birth == 0 {
			def.Birth = c.Store().Clock().Tick()
		}
	})
	if err = errors.Join(err, refused); err != nil {
		return control.Network{}, err
	}
	n.proposed.begin(def)
	defer n.proposed.end()
	against, silent, err := n.admitPools(ctx, &def, is)
	if err != nil {
		return control.Network{}, err
	}
	if err := n.define(ctx, def); err != nil {
		return control.Network{}, err
	}
	d, err := n.describeNetwork(ctx, def.Name)
	d.Against, d.Silent = against, silent
	return d, err
}

// admitPools refuses a definition that is not in effect yet if anything stands
// against it, here or on another node; else it returns what does, and the nodes
// that did not answer.
func (n *Node) admitPools(ctx context.Context, def *state.NetworkDef, is standing) (against, silent []string,
	err error,
) {
	if is == inEffect {
		return n.askPools(ctx, def, true)
	}
	const fix = "choose a pool that no host of the mesh uses; ip address and ip route show what a host uses, and " +
		"meshctl network ls the networks"
	if text := n.against(newPoolsCall(def, false).Pools); text != "" {
		return nil, nil, control.Refuse(control.CodeConflict, fix, "subnet: this host cannot serve %s", text)
	}
	against, silent, err = n.askPools(ctx, def, is == disputed)
	if err != nil {
		return nil, nil, err
	}
	if older := n.proposed.stand(); older != "" {
		against = append(against, older)
	}
	if len(against) > 0 {
		return nil, nil, control.Refuse(control.CodeConflict, fix, "subnet: %s", strings.Join(against, "; "))
	}
	return nil, silent, nil
}

// define states a definition, because a person said so, and takes part in the
// network.
func (n *Node) define(ctx context.Context, def state.NetworkDef) error {
	var old *networkDef
	return n.reg.change(ctx, &update{
		changes: []state.Change{networkChange(state.NetworkClaim{NetworkDef: def, Pinned: true})},
		edit: func(d *draft) error {
			if l := d.networks[def.Name]; l != nil {
				old = l.def
			} else if err := n.current().bounds().room(&d.registry, 1, 0, 0); err != nil {
				return err
			}
			d.setDef(def.Name, newNetworkDef(def))
			return nil
		},
		prepare: func(c *gossip.Core, now time.Duration) (bool, error) { return false, joinNetwork(c, now, def.Name) },
		undo:    func(d *draft) { d.setDef(def.Name, old) },
	})
}

// joinNetwork takes part in a network, or says what to do instead.
func joinNetwork(c *gossip.Core, now time.Duration, name string) error {
	err := c.JoinNetwork(now, name)
	if errors.Is(err, gossip.ErrNameTaken) {
		return control.Refuse(control.CodeConflict, "choose another name for the network", "%v", err)
	}
	return err
}

// standing is what a definition is on this node before a person states it.
type standing int

const (
	unheard  standing = iota // of that name there is none
	disputed                 // somebody states it, but another one is in effect here (V6)
	inEffect                 // it is the one that this node goes by
)

// admitNetwork refuses a definition that stands against another one, and gives
// the same one again its birth.
func admitNetwork(c *gossip.Core, def *state.NetworkDef) (standing, error) {
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
		return unheard, control.Refuse(control.CodeConflict, "use that definition, or another name",
			"network %q exists with the pool %s", def.Name, pools(have))
	}
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		if o := defs[name]; def.Overlaps(&o) {
			return unheard, control.Refuse(control.CodeConflict,
				"choose a pool that overlaps no other; meshctl network ls shows them", "subnet: %s overlaps %s of network %q",
				pools(*def), pools(o), name)
		}
	}
	joined, _ := c.Store().Networks()
	for _, name := range joined {
		if e := taskIn(c.Store().View(name), def); e != nil {
			return unheard, control.Refuse(control.CodeConflict, "choose a pool that holds no task address",
				"subnet: task %q of network %q has an address in %s, where only virtual addresses may live", e.ID(), name,
				pools(*def))
		}
	}
	return unheard, nil
}

// taskIn returns a task whose address is in the definition's pools.
func taskIn(v state.View, def *state.NetworkDef) *state.Entry {
	if v == nil {
		return nil
	}
	for _, s := range v.Services() {
		for _, e := range s.Members {
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
