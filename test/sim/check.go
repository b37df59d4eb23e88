package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"meshd/state"
)

// Checker holds what must never happen (Step) and what must hold once a mesh
// is healed and quiet (Final). It collects violations.
type Checker struct {
	// What it found.

	Violations []string // each a sentence

	// What it looks at.

	w        *World // the nodes
	intruded bool   // somebody states what it likes, as owners that are no nodes
	steps    int    // so far: it looks every few of them

	// What it remembers.

	heads    map[headKey]state.Head             // of every stream at every node, as last seen
	own      map[int32]state.Head               // of each node's own stream at its last step
	vips     map[vipKey]state.VIPClaim          // of every service at every node, as last seen
	rivals   map[string]map[state.VIPClaim]bool // by service: the claims ever seen
	orphaned map[string]bool                    // services that had no host at some moment
	lost     map[state.VIPClaim]bool            // claims that a carrier gave up for good
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
