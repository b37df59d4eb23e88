package mesh

import (
	"cmp"
	"fmt"
	"strings"
	"sync"

	"meshd/state"
)

// proposal is the network that a person is defining on this node, from before
// the other nodes are asked until it is stated: nobody could hear of it
// meanwhile. Of two nodes that define what cannot be together at once, each
// asks the other, and the younger definition gives way (V9). It is safe for
// concurrent use; the zero value is none.
type proposal struct {
	mu     sync.Mutex // guards what follows
	def    *state.NetworkDef
	stands bool   // the other nodes have answered: it gives way to nobody any more
	gives  string // what it gives way to, for people
}

// begin makes a definition known to those who ask. There is one at a time.
func (p *proposal) begin(def state.NetworkDef) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.def, p.stands, p.gives = &def, false, ""
}

// end forgets the definition: it is stated, or refused.
func (p *proposal) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.def = nil
}

// stand is called when the other nodes have answered. It returns what the
// definition gives way to, or "": then it stands against whoever asks later.
func (p *proposal) stand() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stands = p.gives == ""
	return p.gives
}

// against returns what it says to a node that is about to define a network, and
// gives way to the older of the two. It says the same to the same question.
func (p *proposal) against(from state.NodeID, o *state.NetworkDef) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.def == nil || !excludes(p.def, o):
		return ""
	case !p.stands && cmp.Or(state.ByAge(o, p.def), strings.Compare(pools(*o), pools(*p.def))) < 0:
		p.gives = fmt.Sprintf("network %q with %s, which somebody defines on node %s at the same time", o.Name, pools(*o),
			from)
		return ""
	}
	return fmt.Sprintf("network %q with %s, which somebody defines there at the same time", p.def.Name, pools(*p.def))
}

// excludes reports whether there cannot be both: one network with two
// definitions, or two networks with an address in common.
func excludes(a, b *state.NetworkDef) bool {
	if a.Name == b.Name {
		return a.Subnet4 != b.Subnet4 || a.Subnet6 != b.Subnet6
	}
	return a.Overlaps(b)
}
