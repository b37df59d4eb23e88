package registry

import (
	"maps"
	"slices"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// removalMemory is how long each node that had a network states its removal. It is
// longer than a node that has not heard of it may be away (S9, N6).
const removalMemory = 48 * time.Hour

// situation is what reconcile depends on besides the registry. It does not change.
type situation struct {
	defs   *state.Definitions
	joined []string // networks that this node carries
	synced bool     // the global scope was compared with a peer
	keep   []string // networks to take part in without a reason
}

// consequences are what follows for the statements of this node.
type consequences struct {
	global []state.Change // definitions and removals to state, by name; no others
	leave  []string       // networks to take no part in any more
	lost   []string       // networks made here that another node removed
}

// reconcile brings what this node carries in line with what the mesh says: the
// definitions of networks that it takes part in, so that a network survives the node
// that made it and a restart of all nodes (V6), and removals, so that a removal survives
// the node that was asked for it (N6). It is a pure function of its arguments and
// changes nothing but the draft.
func reconcile(d *draft, at *situation, lim Bounds, now time.Time) consequences {
	var out consequences
	d.forgetRemovals(now)
	for _, name := range slices.Sorted(maps.Keys(d.networks)) {
		if d.obeyRemoval(name, at.defs, lim, now) {
			out.lost = append(out.lost, name)
		}
	}
	for _, name := range at.joined {
		if !d.networks[name].used() && !slices.Contains(at.keep, name) {
			out.leave = append(out.leave, name)
		} else {
			d.carry(name, at)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.networks)) {
		here := slices.Contains(at.joined, name) && !slices.Contains(out.leave, name)
		if l := d.networks[name]; !here && !l.used() {
			d.dropNetwork(name)
		}
	}
	out.global = d.globals()
	return out
}

// carry takes over the definition that is in effect if this node has none. A
// definition that the node has changes only by a person's command and ends only by a
// removal: other nodes can write what is in effect (V6). Before the node has compared
// its table with a peer it takes nothing over.
func (d *draft) carry(name string, at *situation) {
	if l := d.networks[name]; l != nil && l.def != nil {
		d.setCarried(name, l.def)
		return
	} else if l != nil && l.carried != nil {
		return
	}
	def, ok := at.defs.Effective[name]
	if ok && at.synced && vouched(at.defs, name) && (!at.defs.Withdrawn(def) || d.networks[name].inUse()) &&
		believable(def) {
		d.setCarried(name, newNetworkDef(def))
	}
}

// vouched reports whether a node that states nothing may take over the definition in
// effect: no node says otherwise, or a node that answers this one states it. A
// definition is kept once it is taken over, so made-up nodes must not choose it (V6).
func vouched(defs *state.Definitions, name string) bool {
	return len(defs.Disputes[name]) == 0 || defs.Names[name].Stated[0].Answering > 0
}

// obeyRemoval forgets the definitions of a network that another node removed, and
// states the removal from now on. A network in use stays: its removal is disputed (V8).
// lost reports that the network was made here.
func (d *draft) obeyRemoval(name string, defs *state.Definitions, lim Bounds, now time.Time) (lost bool) {
	l := d.networks[name]
	if l.inUse() {
		return false
	}
	for _, have := range []*networkDef{l.def, l.carried} {
		if have == nil {
			continue
		}
		def, err := have.parse(name)
		if err != nil {
			continue
		}
		r, ok := defs.Names[name].Removal(def)
		if !ok {
			continue
		}
		if have == l.def {
			lost = true
			d.setDef(name, nil)
		} else {
			d.setCarried(name, nil)
		}
		if believable(r.NetworkDef) && r.Lamport <= maxTime {
			d.remember(removedNetwork{
				name: name, birth: r.Birth, lamport: r.Lamport, def: *newNetworkDef(r.NetworkDef),
				until: now.Add(removalMemory),
			}, lim.Removed)
		}
	}
	if l = d.networks[name]; lost && l.def == nil && l.carried == nil && l.sandboxes == 0 {
		d.dropNetwork(name)
	}
	return lost
}

// believable reports whether this node would accept a definition of another node from
// its own file.
func believable(d state.NetworkDef) bool {
	_, err := newNetworkDef(d).parse(d.Name)
	return err == nil
}

func (d *draft) forgetRemovals(now time.Time) {
	over := func(r removedNetwork) bool { return !now.Before(r.until) }
	if slices.ContainsFunc(d.removed, over) {
		for i := range d.removed {
			if over(d.removed[i]) {
				d.touch(bucketRemoved, d.removed[i].name, "")
			}
		}
		d.removed = slices.DeleteFunc(slices.Clone(d.removed), over)
	}
}

// globals returns the node's statements about networks, by name. If a network was made
// again after its removal, its new definition is stated.
func (s *Snapshot) globals() []state.Change {
	all := map[string]state.Change{}
	for i := range s.removed {
		x := &s.removed[i]
		if d, err := x.def.parse(x.name); err == nil {
			d.Birth = x.birth
			all[x.name] = networkChange(state.NetworkClaim{NetworkDef: d, Removed: true, Lamport: x.lamport})
		}
	}
	for name, l := range s.networks {
		if d, ok := l.states(name); ok {
			all[name] = networkChange(state.NetworkClaim{NetworkDef: d, Pinned: l.def != nil})
		}
	}
	out := make([]state.Change, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[name])
	}
	return out
}

// namedChanges returns the changes after which a node states these definitions and
// removals, and no others.
func namedChanges(s *state.Store, want []state.Change) []state.Change {
	held := s.Stated()
	for _, e := range s.Global().Own(state.KindNetwork) {
		held = append(held, e.Key()) // of another node that had the name
	}
	slices.Sort(held)
	changes, wanted := slices.Clone(want), map[string]bool{}
	for _, ch := range want {
		wanted[ch.Key] = true
	}
	for _, name := range slices.Compact(held) {
		if !wanted[name] {
			changes = append(changes, state.Change{Kind: state.KindNetwork, Key: name, Delete: true})
		}
	}
	return changes
}

// states returns the definition that the node states of a network, if any. One that a
// person made here goes before one that is carried.
func (n *localNetwork) states(name string) (state.NetworkDef, bool) {
	def := n.def
	if def == nil {
		def = n.carried
	}
	if def == nil {
		return state.NetworkDef{}, false
	}
	d, err := def.parse(name)
	return d, err == nil
}

func networkChange(c state.NetworkClaim) state.Change {
	return state.Change{Kind: state.KindNetwork, Key: c.Name, Body: string(state.AppendNetwork(nil, c))}
}

func parseDef(name, subnet4, subnet6 string, birth uint64) (state.NetworkDef, error) {
	d, err := control.CreateNetwork{Name: name, Subnet: subnet4, Subnet6: subnet6}.Parse()
	d.Birth = birth
	return d, err
}
