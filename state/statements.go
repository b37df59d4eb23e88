package state

// statements is what is said about one network, by owner.
type statements struct {
	by    map[NodeID]NetworkClaim
	count map[NetworkDef]*Stated
	gone  map[NetworkClaim]int // removals, by how many state them
}

// add counts a statement n times more, of an owner that answers this node or not.
func (s *statements) add(c NetworkClaim, n int, answers bool) {
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
	if answers {
		t.Answering += n
	}
	if c.Pinned {
		t.Pinned += n
	}
	if t.Carriers == 0 {
		delete(s.count, c.NetworkDef)
	}
}
