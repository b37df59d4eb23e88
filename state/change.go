package state

// This file owns edits of a node's own stream.

// Change is one edit of this node's own stream.
type Change struct {
	Kind   Kind
	Key    string
	Group  string
	Body   string
	Delete bool
}

// lastOfEach drops the changes that a later one of the same record overrides.
func lastOfEach(changes []Change) []Change {
	if len(changes) < 2 {
		return changes
	}
	type id struct {
		kind Kind
		key  string
	}
	last := make(map[id]int, len(changes))
	for i, c := range changes {
		last[id{c.Kind, c.Key}] = i
	}
	if len(last) == len(changes) {
		return changes
	}
	kept := changes[:0:0]
	for i, c := range changes {
		if last[id{c.Kind, c.Key}] == i {
			kept = append(kept, c)
		}
	}
	return kept
}
