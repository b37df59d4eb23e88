package sim

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"meshd/state"
)

// Checker holds what must never happen (Step) and what must hold once a mesh
// is healed and quiet (Final). It collects violations.
type Checker struct {
	w          *World
	Violations []string
	heads      map[headKey]state.Head
	vips       map[vipKey]state.VIPClaim
	rivals     map[string]map[state.VIPClaim]bool // service → claims ever seen
	orphaned   map[string]bool                    // services that had no host at some moment
	lost       map[state.VIPClaim]bool            // claims that a carrier gave up for good
	own        map[int32]state.Head               // of each node's own stream at its last step
	intruded   bool                               // somebody states what it likes, as owners that are no nodes
	steps      int
}

type headKey struct {
	node    int32
	life    uint32
	network string
	owner   state.NodeID
}

type vipKey struct {
	node    int32
	life    uint32
	service string
}

// NewChecker returns a checker for w; set it as Options.OnStep's receiver.
func NewChecker() *Checker {
	return &Checker{
		heads: map[headKey]state.Head{}, vips: map[vipKey]state.VIPClaim{},
		rivals: map[string]map[state.VIPClaim]bool{}, orphaned: map[string]bool{}, lost: map[state.VIPClaim]bool{},
		own: map[int32]state.Head{},
	}
}

// Watch makes the checker look at w from now on.
func (c *Checker) Watch(w *World) { c.w = w }

func (c *Checker) fail(format string, args ...any) {
	if len(c.Violations) < 20 {
		c.Violations = append(c.Violations, fmt.Sprintf("%v: ", c.w.now)+fmt.Sprintf(format, args...))
	}
}

// Step looks at one node after one of its steps, every few steps.
func (c *Checker) Step(n *Node) {
	if c.w == nil {
		return
	}
	if t := n.Table(c.w.opt.Network); t != nil { // every claim ever made is noted
		if h, _ := t.Head(n.ID); h != c.own[n.index] {
			c.own[n.index] = h
			c.claims(n)
		}
	}
	if c.steps++; c.steps%23 == 0 {
		c.Look(n)
	}
}

// Look checks what must hold at any moment on a node.
func (c *Checker) Look(n *Node) {
	for _, t := range n.Store().Tables() {
		c.monotone(n, t)
		if t.Network() != "" {
			c.halves(n, t)
			c.addresses(n, t)
		}
	}
	if t := n.Table(c.w.opt.Network); t != nil {
		c.moves(n, t)
	}
}

// monotone: heads never go backwards (S2) while a node holds a stream.
func (c *Checker) monotone(n *Node, t *state.Table) {
	for _, o := range t.Owners() {
		if c.stranger(o) {
			continue
		}
		h, _ := t.Head(o)
		k := headKey{n.index, n.life, t.Network(), o}
		if was := c.heads[k]; h.Compare(was) < 0 {
			c.fail("S2: %s %q: head of %s went back from %+v to %+v", n.ID, t.Network(), o, was, h)
		}
		c.heads[k] = h
	}
}

// stranger reports whether an owner is an intruder's: what is held of it, and
// for how long, is each node's own affair.
func (c *Checker) stranger(o state.NodeID) bool {
	_, known := c.w.byID[o]
	return c.intruded && !known
}

// halves: tasks named x-a and x-b are always written together, so nobody may
// see one without the other, or in different versions (S4).
func (c *Checker) halves(n *Node, t *state.Table) {
	type twin struct {
		owner state.NodeID
		key   string
	}
	half := map[twin]uint16{}
	t.Walk(func(e *state.Entry) bool {
		base, side, ok := cutSide(e.Key())
		if e.Kind() != state.KindEndpoint || !ok {
			return true
		}
		k := twin{e.Owner(), base}
		if side == "a" {
			half[k] = e.Weight()
			return true
		}
		if w, ok := half[k]; !ok || w != e.Weight() {
			c.fail("S4: %s sees half a commit of %s: %s %d, twin %d", n.ID, e.Owner(), e.Key(), e.Weight(), w)
		}
		delete(half, k)
		return true
	})
	if len(half) > 0 {
		c.fail("S4: %s sees %d halves of commits", n.ID, len(half))
	}
}

func cutSide(key string) (base, side string, ok bool) {
	i := strings.LastIndexByte(key, '-')
	if i < 0 || (key[i+1:] != "a" && key[i+1:] != "b") {
		return "", "", false
	}
	return key[:i], key[i+1:], true
}

// addresses: one address never maps to two services on one node (V5).
func (c *Checker) addresses(n *Node, t *state.Table) {
	by := map[netip.Addr]string{}
	for _, s := range t.View().Services() {
		for _, a := range append([]netip.Addr{s.VIP4}, s.OtherVIPs...) {
			if !a.IsValid() {
				continue
			}
			if o, taken := by[a]; taken && o != s.Name {
				c.fail("V5: %s: address %v of %s and %s", n.ID, a, o, s.Name)
			}
			by[a] = s.Name
		}
	}
}

// Orphan notes services that no running node hosts: they may get another VIP.
func (c *Checker) Orphan(services []string) {
	for _, s := range services {
		hosted := slices.ContainsFunc(c.w.nodes, func(n *Node) bool { return n.up && n.states(c.w.opt.Network, s) })
		if !hosted {
			c.orphaned[s] = true
		}
	}
}

// Loses notes the claims of a node that leaves or loses its disk: within the
// grace of a move it may be the only carrier of the older claim (V5).
func (c *Checker) Loses(n *Node) {
	if t := n.Table(c.w.opt.Network); t != nil {
		for _, e := range t.Own(state.KindVIP) {
			cl, _ := state.ParseVIPClaim(e.Key(), e.Body())
			c.lost[cl] = true
		}
	}
}

func (n *Node) states(network, service string) bool {
	for _, ch := range n.disk.stated[network] {
		if ch.Kind == state.KindEndpoint && ch.Group == service {
			return true
		}
	}
	return false
}

// moves: a service's VIP moves only to an older or pinned claim, or away from
// an address that another service has the better claim on (V3, V4).
func (c *Checker) moves(n *Node, t *state.Table) {
	for _, s := range t.View().Services() {
		a := t.Assignment(s.Name)
		for _, cl := range append(append([]state.VIPClaim{a.Canonical}, a.Others...), a.Losing...) {
			if c.rivals[s.Name] == nil {
				c.rivals[s.Name] = map[state.VIPClaim]bool{}
			}
			c.rivals[s.Name][cl] = true
		}
		if a.Canonical.Service == "" {
			continue
		}
		k := vipKey{n.index, n.life, s.Name}
		if was := c.vips[k]; was.Service != "" && was.VIP4 != a.Canonical.VIP4 && !c.justified(was, a.Canonical) {
			c.fail("V3: %s: VIP of %s moved from %+v to %+v without reason", n.ID, s.Name, was, a.Canonical)
		}
		c.vips[k] = a.Canonical
	}
}

// claims notes the claims that a node carries now.
func (c *Checker) claims(n *Node) {
	for _, e := range n.Table(c.w.opt.Network).Own(state.KindVIP) {
		cl, _ := state.ParseVIPClaim(e.Key(), e.Body())
		if c.rivals[e.Key()] == nil {
			c.rivals[e.Key()] = map[state.VIPClaim]bool{}
		}
		c.rivals[e.Key()][cl] = true
	}
}

func (c *Checker) justified(was, now state.VIPClaim) bool {
	if c.orphaned[was.Service] || c.lost[was] || now.Pinned || older(now, was) {
		return true
	}
	for s, claims := range c.rivals {
		for cl := range claims {
			if s != was.Service && cl.VIP4 == was.VIP4 && (cl.Pinned || older(cl, was)) {
				return true
			}
		}
	}
	return false
}

// older reports whether a claim goes before another, neither of which is pinned (V3).
func older(a, b state.VIPClaim) bool {
	if a.Provisional != b.Provisional {
		return b.Provisional
	}
	return a.Birth <= b.Birth
}

// Final checks what must hold once everything has healed.
func (c *Checker) Final() {
	for _, name := range c.networks() {
		var members []*Node
		for _, n := range c.w.nodes {
			if n.up && n.Table(name) != nil {
				members = append(members, n)
			}
		}
		for _, n := range members {
			c.Look(n)
			c.truth(n, members, name)
			c.vipMap(n, members[0], name)
		}
		if bad := c.Difference(name); bad != "" {
			c.fail("S10: %q: %s", name, bad)
		}
	}
	c.liveness()
}

func (c *Checker) networks() []string {
	names := map[string]bool{"": true}
	for _, n := range c.w.nodes {
		if n.up {
			for _, t := range n.Store().Tables() {
				names[t.Network()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// truth: what a running owner states is what it holds itself, and what all hold.
func (c *Checker) truth(n *Node, members []*Node, network string) {
	if n.Core.Yielded() {
		return
	}
	want := map[string]string{}
	for _, ch := range n.disk.stated[network] {
		if ch.Kind == state.KindEndpoint {
			want[ch.Key] = ch.Group + "\x00" + ch.Body
		}
	}
	for _, m := range members {
		got := map[string]string{}
		for _, e := range m.Table(network).OwnerEntries(n.ID, state.KindEndpoint) {
			got[e.Key()] = e.Group() + "\x00" + e.Body()
		}
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if got[k] != want[k] {
				c.fail("lost: %s does not have %s of %s (or not as stated)", m.ID, k, n.ID)
				break
			}
		}
		for _, k := range slices.Sorted(maps.Keys(got)) {
			if _, ok := want[k]; !ok {
				c.fail("resurrected: %s has %s of %s, which withdrew it", m.ID, k, n.ID)
				break
			}
		}
	}
}

// vipMap: the same table gives the same VIP map on every node (V3).
func (c *Checker) vipMap(n, first *Node, network string) {
	if network == "" {
		return
	}
	for _, s := range first.Table(network).View().Services() {
		if c.intruded && !strings.HasPrefix(s.Name, "svc") {
			continue // an intruder's
		}
		o := n.Table(network).View().Service(s.Name)
		if o == nil || o.VIP4 != s.VIP4 || !slices.Equal(o.OtherVIPs, s.OtherVIPs) {
			c.fail("V3: VIPs of %s differ between %s and %s: %+v, %+v", s.Name, n.ID, first.ID, s, o)
			return
		}
	}
}

// liveness: running nodes are served by all, dead ones by nobody.
func (c *Checker) liveness() {
	for _, n := range c.w.nodes {
		if !n.up {
			continue
		}
		for _, m := range c.w.nodes {
			l := n.Store().Liveness(m.ID)
			switch {
			case m == n || c.w.byID[m.ID] != m.index:
			case m.up && l != state.Alive:
				c.fail("S9: %s takes %s, which lives, as %v", n.ID, m.ID, l)
			case !m.up && l == state.Alive:
				c.fail("S9: %s takes %s, which is down, as %v", n.ID, m.ID, l)
			}
		}
	}
}

// Difference says how the tables of the running participants differ, in their
// content, and not only in their checksums; "" if they do not.
func (c *Checker) Difference(network string) string {
	var first *Node
	var want map[string]string
	for _, n := range c.w.nodes {
		if !n.up || n.Table(network) == nil {
			continue
		}
		got := c.content(n.Table(network))
		if first == nil {
			first, want = n, got
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if got[k] != want[k] {
				return fmt.Sprintf("%s and %s differ in %s: %s and %s", first.ID, n.ID, k, brief(want[k]), brief(got[k]))
			}
		}
		for _, k := range slices.Sorted(maps.Keys(got)) {
			if _, ok := want[k]; !ok {
				return fmt.Sprintf("%s lacks %s, which %s has: %s", first.ID, k, n.ID, brief(got[k]))
			}
		}
		if a, b := n.Table(network).Checksum(), first.Table(network).Checksum(); a != b && !c.intruded {
			return fmt.Sprintf("%s and %s have equal content, but checksums %x and %x", first.ID, n.ID, b, a)
		}
	}
	return ""
}

func brief(s string) string {
	if s == "" {
		return "nothing"
	}
	return fmt.Sprintf("%.60q", s)
}

// content flattens a table: heads and live records of every owner.
func (c *Checker) content(t *state.Table) map[string]string {
	m := map[string]string{}
	t.Walk(func(e *state.Entry) bool {
		if c.stranger(e.Owner()) {
			return true
		}
		m[fmt.Sprintf("%s/%d/%s", e.Owner(), e.Kind(), e.Key())] = fmt.Sprintf("v%d %s %x", e.Version(), e.Group(), e.Body())
		return true
	})
	for _, o := range t.Owners() {
		if h, _ := t.Head(o); h.Sum != 0 && !c.stranger(o) { // an empty stream says nothing
			m["head of "+string(o)] = fmt.Sprintf("%+v", h)
		}
	}
	return m
}
