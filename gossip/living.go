package gossip

import (
	"slices"
	"sort"

	"meshd/state"
)

// This file owns who of a network's participants is taken for alive. One change of a
// member costs one line in a log; each network takes over what it missed when it is
// next asked, so that a change costs nothing in networks where nobody looks.

// living is the participants of one network that are taken for alive.
type living struct {
	all, proven memberSet
	upTo        uint64 // the changes of memberLog that are in it; 0: it is to be made anew
}

// memberLog is the names of members of whom something changed that living depends on.
//
// Invariant: names has at most maxMemberLog; first is at least 1.
type memberLog struct {
	names []state.NodeID
	first uint64 // the number of names[0]
}

// maxMemberLog is how many changes a network may miss before its list is made anew.
const maxMemberLog = 4096

// add adds a change.
func (l *memberLog) add(id state.NodeID) {
	if len(l.names) >= maxMemberLog {
		l.names = append(l.names[:0], l.names[maxMemberLog/2:]...)
		l.first += maxMemberLog / 2
	}
	l.names = append(l.names, id)
}

// end is the number of the next change.
func (l *memberLog) end() uint64 { return l.first + uint64(len(l.names)) }

// forget makes every network's list be made anew.
func (l *memberLog) forget() { l.first, l.names = l.end()+1, l.names[:0] }

// living returns the participants of a network that are taken for alive, sorted. The
// list is the roster's, and valid until the next change.
func (r *roster) living(name string) nodeList {
	if r.cfg.Peers != nil {
		return staticNodes(r.cfg.Peers)
	}
	return r.livingOf(name).all
}

// livingProven returns those of living that have shown that they exist.
func (r *roster) livingProven(name string) nodeList {
	if r.cfg.Peers != nil {
		return staticNodes(nil) // they are no members
	}
	return r.livingOf(name).proven
}

// livingOf returns the list of a network, brought up to date.
func (r *roster) livingOf(name string) *living {
	moved, all := r.store.TakeMoved()
	for _, id := range moved {
		r.log.add(id)
	}
	if all {
		r.log.forget()
	}
	l := r.networks[name]
	if l == nil {
		l = &living{}
		r.networks[name] = l
	}
	switch {
	case l.upTo == r.log.end():
		return l
	case l.upTo == 0 || l.upTo < r.log.first || r.log.end()-l.upTo > uint64(r.mostLiving(name)):
		r.relist(l, name)
	default:
		for _, id := range r.log.names[l.upTo-r.log.first:] {
			m := r.members[id]
			if m == nil {
				m = &member{id: id, phase: phaseDead}
			}
			in := m.reachable() && r.takesPart(id, name)
			l.all.set(m, in)
			l.proven.set(m, in && m.proven)
		}
	}
	l.upTo = r.log.end()
	return l
}

// mostLiving is how many participants of a network there can be: so many changes cost
// as much as a new list, and most of them are not the network's.
func (r *roster) mostLiving(name string) int {
	if name == "" {
		return max(len(r.members), maxMemberLog)
	}
	return len(r.store.Participants(name))
}

// relist makes the list of a network anew.
func (r *roster) relist(l *living, name string) {
	l.all, l.proven = newMemberSet(), newMemberSet()
	add := func(m *member) bool {
		if m != nil && m.reachable() {
			l.all.tree.Load(m)
			if m.proven {
				l.proven.tree.Load(m)
			}
		}
		return true
	}
	if name == "" {
		r.ordered.tree.Scan(add)
		return
	}
	for _, id := range r.store.Participants(name) {
		add(r.members[id])
	}
}

// forgetNetwork drops the list of a network that this node has left.
func (r *roster) forgetNetwork(name string) { delete(r.networks, name) }

// countLiving returns how many participants of a network are taken for alive. It
// counts once per step: a join brings its members one by one, and each of them
// changes the number.
func (r *roster) countLiving(n *network) int {
	if n.livingCount == 0 || n.livingCountAt != r.now {
		n.livingCount, n.livingCountAt = r.living(n.name).Len(), r.now
	}
	return n.livingCount
}

// pick returns up to k random members of from that are not in not, in random
// order.
func (r *roster) pick(from nodeList, k int, not ...state.NodeID) []state.NodeID {
	out := make([]state.NodeID, 0, k)
	n := from.Len()
	if n <= 2*k+len(not) {
		for _, i := range r.rng.Perm(n) {
			if p := from.At(i); len(out) < k && p != r.cfg.Self && !slices.Contains(not, p) {
				out = append(out, p)
			}
		}
		return out
	}
	for tries := 0; len(out) < k && tries < 8*k; tries++ {
		p := from.At(r.rng.IntN(n))
		if p != r.cfg.Self && !slices.Contains(not, p) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// ringPeer returns the participant that this node tells of recent news in one of
// its turns. All participants are a ring by name, and each tells its successor, then
// the one half way round, then the one a third of the way: nodes that know the same
// participants leave none out. ok is false if there is no other.
func (r *roster) ringPeer(from nodeList, turn int) (id state.NodeID, ok bool) {
	others := from.Len()
	at := sort.Search(others, func(i int) bool { return from.At(i) >= r.cfg.Self })
	self := at < others && from.At(at) == r.cfg.Self
	if self {
		others--
	}
	if others == 0 {
		return "", false
	}
	step := 0
	if turn > 0 {
		step = others / (turn + 1)
	}
	i := (at + step) % others
	if self && i >= at {
		i++
	}
	return from.At(i), true
}
