package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"meshd/state"
)

// This file checks what must hold once everything has healed.

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
