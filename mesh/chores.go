package mesh

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// chores keeps what the node carries in line with the table, once a second and
// after every registration: network definitions (V6), reservations (V2), what
// is on disk.
func (n *Node) chores(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := 0; ; i++ {
		n.mu.Lock()
		n.carryNetworks(ctx)
		n.keepClaims(ctx)
		n.mu.Unlock()
		if i%10 == 9 {
			if time.Since(time.Unix(n.dupSeen.Load(), 0)) > duplicateMemory {
				n.notices.set("duplicate", "")
			}
			n.restate(ctx)
		}
		if i%30 == 29 {
			n.saveIdentity()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// duplicateMemory is how long a duplicate name is shown after it was last told
// of: the core repeats it every minute.
const duplicateMemory = 150 * time.Second

// restate makes the node's streams say what is registered, whatever happened
// to them: after another node had its name (S7), for example. Saying what is
// said already costs nothing.
func (n *Node) restate(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.host.Do(ctx, func(c *gossip.Core, now time.Duration) {
		for _, name := range slices.Sorted(maps.Keys(n.reg.Networks)) {
			l := n.reg.Networks[name]
			if !l.used() || c.Yielded() {
				continue
			}
			n.check(c.JoinNetwork(now, name))
			var cs []state.Change
			for _, e := range c.Store().Table(name).Own(state.KindEndpoint) {
				if _, registered := l.Tasks[e.Key()]; !registered {
					cs = append(cs, state.Change{Kind: state.KindEndpoint, Key: e.Key(), Delete: true})
				}
			}
			n.hostAll(c, name, l)
			for _, id := range slices.Sorted(maps.Keys(l.Tasks)) {
				cs = append(cs, l.Tasks[id].change(id))
			}
			n.check(c.Commit(now, name, cs))
		}
	})
}

// saveIdentity writes node.json if the incarnation or the clock moved.
func (n *Node) saveIdentity() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	n.mu.Lock()
	defer n.mu.Unlock()
	id := n.id
	_ = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { id.Incarnation = max(id.Incarnation, c.Store().Incarnation()) })
	id.Lamport = n.host.Lamport()
	if id == n.id {
		return
	}
	if err := n.dir.save("node.json", id); err != nil {
		n.log.Error("identity not saved", "error", err)
		return
	}
	n.id = id
}

func parseDef(name, subnet4, subnet6 string, birth uint64) (state.NetworkDef, error) {
	d, err := control.CreateNetwork{Name: name, Subnet: subnet4, Subnet6: subnet6}.Parse()
	d.Birth = birth
	return d, err
}

// globals returns the node's statements about networks.
func (n *Node) globals() []state.Change {
	var cs []state.Change
	for _, name := range slices.Sorted(maps.Keys(n.reg.Networks)) {
		l := n.reg.Networks[name]
		def := cmp.Or(l.Def, l.Carried)
		if def == nil {
			continue
		}
		if d, err := def.parse(name); err == nil {
			cs = append(cs, networkChange(state.NetworkClaim{NetworkDef: d, Pinned: l.Def != nil}))
		}
	}
	for _, r := range n.reg.Removed {
		if d, err := parseDef(r.Name, r.Def.Subnet4, r.Def.Subnet6, r.Birth); err == nil {
			cs = append(cs, networkChange(state.NetworkClaim{NetworkDef: d, Removed: true, Lamport: r.Lamport}))
		}
	}
	return cs
}

func networkChange(c state.NetworkClaim) state.Change {
	return state.Change{Kind: state.KindNetwork, Key: c.Name, Body: string(state.AppendNetwork(nil, c))}
}

// removalMemory is how long the removal of a network is stated: longer than a
// node that still has it may be away (D2).
const removalMemory = 48 * time.Hour

// carryNetworks makes the node's statements in the global scope what they
// should be: its own networks, the definitions of those it takes part in, its
// address. Networks that were removed or are no longer used are left. The
// caller holds mu.
func (n *Node) carryNetworks(ctx context.Context) {
	n.reg.Removed = slices.DeleteFunc(n.reg.Removed, func(r removedNetwork) bool { return time.Since(r.At) > removalMemory })
	_ = n.host.Do(ctx, func(c *gossip.Core, now time.Duration) {
		if c.Yielded() {
			return // another node has our name: we state nothing (S7)
		}
		defs := c.Store().Definitions()
		n.dropRemoved(defs)
		n.keepDefs(defs, c)
		want := map[string]state.Change{}
		for _, ch := range n.globals() {
			want[ch.Key] = ch
		}
		joined, _ := c.Store().Networks()
		for _, name := range joined {
			l := n.reg.Networks[name]
			if (l == nil || !l.used()) && !slices.Contains(n.cfg.Networks, name) {
				n.check(c.LeaveNetwork(now, name))
				delete(want, name)
			}
		}
		changes := []state.Change{{Kind: state.KindNode, Body: string(state.AppendNode(nil, n.info()))}}
		for _, e := range c.Store().Global().Own(state.KindNetwork) {
			if _, keep := want[e.Key()]; !keep {
				changes = append(changes, state.Change{Kind: state.KindNetwork, Key: e.Key(), Delete: true})
			}
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			changes = append(changes, want[name])
		}
		n.check(c.Commit(now, "", changes))
		n.noteDisputes(c)
	})
}

// keepDefs writes to disk which definitions of others this node carries, so
// that a network outlives its maker and a restart of all (V6). What is carried
// stays in effect here, so nothing is taken from a mesh that we do not yet know.
func (n *Node) keepDefs(defs *state.Definitions, c *gossip.Core) {
	joined, _ := c.Store().Networks()
	changed := false
	for _, name := range joined {
		l := n.reg.Networks[name]
		d, defined := defs.Effective[name]
		if !defined || !c.Store().Global().View().Synced() || defs.Withdrawn(d) && (l == nil || !l.inUse()) {
			continue
		}
		if l == nil || l.Carried == nil || *l.Carried != *newNetworkDef(d) {
			n.reg.network(name).Carried = newNetworkDef(d)
			changed = true
		}
	}
	for name, l := range n.reg.Networks {
		if l.Carried == nil {
			continue
		}
		unused := !l.used() && !slices.Contains(joined, name)
		if unused || !l.inUse() && withdrawn(defs, name, l.Carried) {
			l.Carried = nil
			changed = true
		}
	}
	if changed {
		n.saveRegistry()
	}
}

// dropRemoved forgets definitions of ours that somebody removed. A network in
// use stays: its removal is disputed (V8).
func (n *Node) dropRemoved(defs *state.Definitions) {
	changed := false
	for name, l := range n.reg.Networks {
		if l.Def == nil || l.inUse() || !withdrawn(defs, name, l.Def) {
			continue
		}
		n.log.Info("network removed", "network", name)
		l.Def, changed = nil, true
		if !l.used() && l.Carried == nil {
			delete(n.reg.Networks, name)
		}
	}
	if changed {
		n.saveRegistry()
	}
}

// withdrawn reports whether somebody removed a definition that this node has on disk.
func withdrawn(defs *state.Definitions, name string, d *networkDef) bool {
	def, err := d.parse(name)
	return err == nil && defs.Withdrawn(def)
}

// noteDisputes says loudly that one network has two definitions (V6).
func (n *Node) noteDisputes(c *gossip.Core) {
	var text strings.Builder
	for _, t := range conflicts(c) {
		text.WriteString(t + "; ")
	}
	if n.notices.get("networks") != text.String() && text.String() != "" {
		n.log.Error("network defined twice", "detail", text.String())
		n.emit(control.Event{Type: control.EventNetworkConflict, Detail: text.String()})
	}
	n.notices.set("networks", text.String())
}

func disputeText(d state.NetworkDef, losers []state.NetworkDef) string {
	var text strings.Builder
	text.WriteString("network " + d.Name + " is " + pools(d) + " everywhere; refused: ")
	for i, l := range losers {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(pools(l))
	}
	return text.String() + " (run meshctl network create with the first on the nodes that made the others)"
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

func (s *notices) get(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text[key]
}

// keepClaims writes the claims that the node carries to disk when they
// changed, so that a restart keeps every VIP (V2), and forgets reservations
// that are over. The caller holds mu.
func (n *Node) keepClaims(ctx context.Context) {
	changed := false
	_ = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		if c.Yielded() {
			return
		}
		for name, l := range n.reg.Networks {
			t := c.Store().Table(name)
			if t == nil {
				continue
			}
			have := map[string]savedClaim{}
			for _, k := range []state.Kind{state.KindVIP, state.KindSettings} {
				for _, e := range t.Own(k) {
					s := have[e.Key()]
					if k == state.KindVIP {
						s.VIP = []byte(e.Body())
					} else {
						s.Settings = []byte(e.Body())
					}
					s.Until = l.Services[e.Key()].Until
					have[e.Key()] = s
				}
			}
			if !maps.EqualFunc(have, l.Services, savedClaim.equal) {
				l.Services = have
				changed = true
			}
		}
	})
	if changed {
		n.saveRegistry()
	}
}

func (a savedClaim) equal(b savedClaim) bool {
	return bytes.Equal(a.VIP, b.VIP) && bytes.Equal(a.Settings, b.Settings) && a.Until.Equal(b.Until)
}

func (n *Node) saveRegistry() {
	if err := n.dir.save("tasks.json", n.reg); err != nil {
		n.log.Error("registrations not saved", "error", err)
		n.notices.set("disk", err.Error())
		return
	}
	n.notices.set("disk", "")
}
