package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// removalMemory is how long the removal of a network is stated by each node that
// had it: longer than a node that still has it may be away (S9).
const removalMemory = 48 * time.Hour

// situation is what reconcile goes by. It is never changed.
type situation struct {
	defs   *state.Definitions
	joined []string // networks that this node carries
	synced bool     // the global scope was compared with a peer
	keep   []string // networks to take part in without a reason
}

// stated is what follows for this node's own statements.
type stated struct {
	global []state.Change // definitions and removals to state, by name; no others
	leave  []string       // networks to take no part in any more
	lost   []string       // networks made here that somebody removed
}

// reconcile brings what this node carries in line with what the mesh says (V6):
// definitions of the networks that it takes part in, so that a network outlives
// its maker and a restart of all; removals, so that one outlives the node that
// it was asked of (N6). It is a pure function of its arguments, and changes the
// draft alone.
func reconcile(d *draft, at *situation, lim bounds, now time.Time) stated {
	var out stated
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

// carry takes over the definition that is in effect, if this node has none yet:
// what it has is changed by a person's command only, or ends by a removal, and
// never by what the view says, which others can write (V6). Nothing is taken from
// a mesh that this node does not yet know.
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

// vouched reports whether a node that states nothing may take over what is in
// effect: nobody says otherwise, or somebody states it who answers this node. A
// definition is kept once it is taken, so it is not to be that of made-up nodes (V6).
func vouched(defs *state.Definitions, name string) bool {
	return len(defs.Disputes[name]) == 0 || defs.Names[name].Stated[0].Answering > 0
}

// obeyRemoval forgets the definitions of a network that somebody removed, and
// states the removal from now on. A network in use stays: its removal is
// disputed (V8). lost says that it was one that was made here.
func (d *draft) obeyRemoval(name string, defs *state.Definitions, lim bounds, now time.Time) (lost bool) {
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
			}, lim.removed)
		}
	}
	if l = d.networks[name]; lost && l.def == nil && l.carried == nil && l.sandboxes == 0 {
		d.dropNetwork(name)
	}
	return lost
}

// believable reports whether a definition of another node is one that this node
// would read from its own file again.
func believable(d state.NetworkDef) bool {
	_, err := newNetworkDef(d).parse(d.Name)
	return err == nil
}

func (d *draft) forgetRemovals(now time.Time) {
	over := func(r removedNetwork) bool { return !now.Before(r.until) }
	if slices.ContainsFunc(d.removed, over) {
		d.removed = slices.DeleteFunc(slices.Clone(d.removed), over)
		d.dirty = true
	}
}

// globals returns the node's statements about networks, by name. Of a network
// that was made again after its removal, the new definition is stated.
func (r *registry) globals() []state.Change {
	all := map[string]state.Change{}
	for i := range r.removed {
		x := &r.removed[i]
		if d, err := x.def.parse(x.name); err == nil {
			d.Birth = x.birth
			all[x.name] = networkChange(state.NetworkClaim{NetworkDef: d, Removed: true, Lamport: x.lamport})
		}
	}
	for name, l := range r.networks {
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

// namedChanges returns what makes a node state these definitions and removals, and
// no others.
func namedChanges(s *state.Store, want []state.Change) []state.Change {
	said := s.Held()
	for _, e := range s.Global().Own(state.KindNetwork) {
		said = append(said, e.Key()) // a namesake's, while it had the name
	}
	slices.Sort(said)
	changes, wanted := slices.Clone(want), map[string]bool{}
	for _, ch := range want {
		wanted[ch.Key] = true
	}
	for _, name := range slices.Compact(said) {
		if !wanted[name] {
			changes = append(changes, state.Change{Kind: state.KindNetwork, Key: name, Delete: true})
		}
	}
	return changes
}

// states returns the definition that the node states of a network, if any: what
// a person said here goes before what is carried.
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

// maxDisputes is how many other definitions of one network are named.
const maxDisputes = 4

// disputeText says that one network has two definitions (V6).
func disputeText(d state.NetworkDef, others []state.NetworkDef) string {
	var text strings.Builder
	text.WriteString("network " + d.Name + " is " + pools(d) + " here; other nodes say ")
	for i, o := range others[:min(len(others), maxDisputes)] {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(pools(o))
	}
	if left := len(others) - maxDisputes; left > 0 {
		fmt.Fprintf(&text, " and %d more", left)
	}
	return text.String() + " (each keeps its own until somebody runs meshctl network create with the right one on the " +
		"nodes that say otherwise)"
}

// networkTrouble says what is wrong with a network's definition: "" if nothing is.
func networkTrouble(defs *state.Definitions, name string) string {
	var out []string
	if ds := defs.Disputes[name]; len(ds) > 0 {
		out = append(out, disputeText(defs.Effective[name], ds))
	}
	if older, ok := defs.Overlaps[name]; ok {
		out = append(out, "network "+name+" overlaps "+pools(defs.Effective[older])+" of the older network "+older+
			": a node in both answers for "+name+" with its tasks (remove one of the two, and make it again with another pool)")
	}
	return strings.Join(out, "; ")
}

func pools(d state.NetworkDef) string {
	s := ""
	if d.Subnet4.IsValid() {
		s = d.Subnet4.String()
	}
	if d.Subnet6.IsValid() {
		if s != "" {
			s += " and "
		}
		s += d.Subnet6.String()
	}
	return s
}
