package registry

import (
	"cmp"
	"fmt"
	"strings"
	"sync"

	"meshd/state"
)

// proposal is the network that a person is defining on this node, from before the
// other nodes are asked until it is stated. Other nodes cannot know of it in that
// time. When two nodes define networks that exclude each other, each asks the other,
// and the younger definition yields (V9). It is safe for concurrent use; the zero
// value is no proposal.
type proposal struct {
	mu     sync.Mutex // guards what follows
	def    *state.NetworkDef
	final  bool   // the other nodes have answered: it yields no more
	yields string // what it yields to, for people; "" if to nothing
}

// begin makes a definition known to nodes that ask. There is one at a time.
func (p *proposal) begin(def state.NetworkDef) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.def, p.final, p.yields = &def, false, ""
}

// end forgets the definition: it is stated, or refused.
func (p *proposal) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.def = nil
}

// finish is called when the other nodes have answered. It returns what the
// definition yields to, or "": then nodes that ask later have to yield.
func (p *proposal) finish() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.final = p.yields == ""
	return p.yields
}

// against returns what it answers a node that is about to define a network, and
// yields if that definition is the older one. The same question has the same answer.
func (p *proposal) against(from state.NodeID, o *state.NetworkDef) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.def == nil || !excludes(p.def, o):
		return ""
	case !p.final && cmp.Or(state.ByAge(o, p.def), strings.Compare(PoolsText(*o), PoolsText(*p.def))) < 0:
		p.yields = fmt.Sprintf("network %q with %s, which somebody defines on node %s at the same time", o.Name,
			PoolsText(*o), from)
		return ""
	}
	return fmt.Sprintf("network %q with %s, which somebody defines there at the same time", p.def.Name, PoolsText(*p.def))
}

// excludes reports whether two definitions cannot exist together: they give one
// network different pools, or two networks an address in common.
func excludes(a, b *state.NetworkDef) bool {
	if a.Name == b.Name {
		return a.Subnet4 != b.Subnet4 || a.Subnet6 != b.Subnet6
	}
	return a.Overlaps(b)
}
