package registry

import (
	"bytes"
	"slices"
)

// Same reports whether two snapshots hold the same, but for how long reservations and
// removals last: what is read of one moment twice may differ in that.
func (s *Snapshot) Same(o *Snapshot) bool {
	if len(s.networks) != len(o.networks) || !slices.EqualFunc(s.removed, o.removed, sameRemoval) {
		return false
	}
	for name, l := range s.networks {
		if m := o.networks[name]; m == nil || !l.same(m) {
			return false
		}
	}
	return true
}

func sameRemoval(a, b removedNetwork) bool {
	return a.name == b.name && a.birth == b.birth && a.lamport == b.lamport && a.def == b.def
}

func (n *localNetwork) same(o *localNetwork) bool {
	if !same(n.def, o.def) || !same(n.carried, o.carried) || n.tasks.len() != o.tasks.len() ||
		n.services.len() != o.services.len() {
		return false
	}
	for id, t := range n.tasks.all() {
		if u := o.tasks.at(id); u == nil || u.Service != t.Service || !bytes.Equal(u.Body, t.Body) {
			return false
		}
	}
	for name, c := range n.services.all() {
		if d := o.services.at(name); d == nil || !bytes.Equal(c.vip, d.vip) || !bytes.Equal(c.settings, d.settings) {
			return false
		}
	}
	return true
}
