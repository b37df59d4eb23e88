package gossip

import "meshd/state"

// Every name that arrives is checked where it is read (G8): one that no node
// and no network can have is no key of a map here.

// node reads the name of a node.
func (d *decoder) node(s string) state.NodeID {
	if d.err == nil && state.CheckName(s) != nil {
		d.fail("node name")
		return ""
	}
	return state.NodeID(s)
}

// network reads the name of a network; the empty one is the global scope.
func (d *decoder) network(s string) string {
	if d.err == nil && s != "" && state.CheckName(s) != nil {
		d.fail("network name")
		return ""
	}
	return s
}
