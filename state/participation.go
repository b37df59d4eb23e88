package state

import "slices"

// This file owns who takes part in which network, as the global scope says (G6).

// participation is the participants of networks. It belongs to the store's goroutine.
type participation struct {
	members map[string][]NodeID // network → participants, sorted

	moved     []NodeID // whose part changed since TakeMoved, at most maxMoved
	movedMany bool     // there were more
}

// maxMoved bounds the owners that TakeMoved names.
const maxMoved = 4096

// setParticipates records whether a node takes part in a network. The records of a
// stream that is replaced come and go in any order.
func (p *participation) setParticipates(network string, o NodeID, yes bool) {
	ps := p.members[network]
	i, have := slices.BinarySearch(ps, o)
	switch {
	case yes == have:
		return
	case yes:
		ps = slices.Insert(ps, i, o)
	default:
		ps = slices.Delete(ps, i, i+1)
	}
	if p.members[network] = ps; len(ps) == 0 {
		delete(p.members, network)
	}
	p.addMoved(o)
}

func (p *participation) takesPart(network string, o NodeID) bool {
	_, yes := slices.BinarySearch(p.members[network], o)
	return yes
}

// Participants returns the nodes that said they take part in a network, sorted,
// whatever their liveness. The slice is the store's, and valid until the next
// change; do not change it.
func (p *participation) Participants(network string) []NodeID { return p.members[network] }

// addMoved records that an owner joined or left a network.
func (p *participation) addMoved(o NodeID) {
	switch n := len(p.moved); {
	case n > 0 && p.moved[n-1] == o:
	case n >= maxMoved:
		p.movedMany = true
	default:
		p.moved = append(p.moved, o)
	}
}

// TakeMoved returns the owners who joined or left a network since the last call, some
// of them twice, and whether there are more than it can name. The slice is valid until
// the next change.
func (p *participation) TakeMoved() (owners []NodeID, more bool) {
	owners, more = p.moved, p.movedMany
	p.moved, p.movedMany = p.moved[:0], false
	return owners, more
}
