package gossip

import (
	"github.com/tidwall/btree"

	"meshd/state"
)

// This file owns the form of lists of members: sorted by name, and such that one more,
// one less, and the n-th cost no more in a mesh of 100,000 nodes than in one of ten.

// nodeList is an ordered list of nodes, of which some are drawn.
type nodeList interface {
	Len() int
	At(i int) state.NodeID // the i-th, from 0; it must exist
}

// memberSet is members by name.
type memberSet struct{ tree *btree.BTreeG[*member] }

var _ nodeList = memberSet{}

// newMemberSet returns an empty set. It belongs to one goroutine.
func newMemberSet() memberSet {
	return memberSet{btree.NewBTreeGOptions(func(a, b *member) bool { return a.id < b.id }, btree.Options{NoLocks: true})}
}

// Len is the number of members.
func (s memberSet) Len() int { return s.tree.Len() }

// At implements nodeList.
func (s memberSet) At(i int) state.NodeID { return s.nth(i).id }

// nth returns the i-th member by name, from 0; it must exist.
func (s memberSet) nth(i int) *member {
	m, _ := s.tree.GetAt(i)
	return m
}

// set says whether a member is in the set.
func (s memberSet) set(m *member, in bool) {
	if in {
		s.tree.Set(m)
	} else {
		s.tree.Delete(m)
	}
}

// all returns the members, sorted by name: a copy, so that what is done about one may
// change the set.
func (s memberSet) all() []*member { return s.tree.Items() }

// from returns up to n members from a name on.
func (s memberSet) from(name state.NodeID, n int) []*member {
	out := make([]*member, 0, n)
	s.tree.Ascend(&member{id: name}, func(m *member) bool {
		if len(out) < n {
			out = append(out, m)
		}
		return len(out) < n
	})
	return out
}

// staticNodes is a nodeList that never changes.
type staticNodes []state.NodeID

// Len is the number of nodes.
func (s staticNodes) Len() int { return len(s) }

// At implements nodeList.
func (s staticNodes) At(i int) state.NodeID { return s[i] }
