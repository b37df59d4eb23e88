package state

// This file owns the counts of what is stated about one network.

// statements is what is said about one network, by owner.
type statements struct {
	by    map[NodeID]statement
	count map[NetworkDef]*Stated
	gone  map[NetworkClaim]int // removals, by how many state them
}

// statement is what one owner says about a network.
type statement struct {
	NetworkClaim
	answers bool // it is this node's own, or of an owner that answers this node
}

// add counts a statement n times more.
func (s *statements) add(x statement, n int) {
	c := x.NetworkClaim
	if c.Removed {
		c.Pinned = false // says nothing of a removal
		if s.gone[c] += n; s.gone[c] == 0 {
			delete(s.gone, c)
		}
		return
	}
	t := s.count[c.NetworkDef]
	if t == nil {
		t = &Stated{Def: c.NetworkDef}
		s.count[c.NetworkDef] = t
	}
	t.Carriers += n
	if x.answers {
		t.Answering += n
	}
	if c.Pinned {
		t.Pinned += n
	}
	if t.Carriers == 0 {
		delete(s.count, c.NetworkDef)
	}
}
