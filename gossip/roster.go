package gossip

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// This file owns the list of the other nodes and answers who takes part where,
// who lives and how many count. Members are looked at once a second, in the order
// of their names, and there may be 65,536 of them that a hostile node made up: so
// the order is kept and numbers are counted as they change.

// roster is the list of the other nodes. The other parts read members here; only
// liveness changes what becomes of them.
//
// Invariant: ordered holds the values of members, sorted by name, and listed is how
// many of them are listed.
type roster struct {
	*env

	// The members.

	members map[state.NodeID]*member // at most maxMembers that are known from packets alone
	ordered []*member
	listed  int // by the membership
	recent  int // how many the membership may still count, at the last sweep; see membershipSize

	// What follows from them.

	targets   map[string][]state.NodeID // cache of living, by network; cleared when a member's phase or part changes
	lastHeard time.Duration             // when the last packet came that can have been a datagram; see deaf
}

// deadMemory is about how long memberlist goes on to count a node that it takes
// for dead.
const deadMemory = 30 * time.Second

// maxMembers bounds the members that are known from packets alone.
const maxMembers = 1 << 16

// add adds a member.
func (r *roster) add(m *member) {
	i, _ := slices.BinarySearchFunc(r.ordered, m.id, byName)
	r.ordered = slices.Insert(r.ordered, i, m)
	r.members[m.id] = m
}

// remove removes a member.
func (r *roster) remove(m *member) {
	r.setListed(m, false)
	if i, ok := slices.BinarySearchFunc(r.ordered, m.id, byName); ok {
		r.ordered = slices.Delete(r.ordered, i, i+1)
	}
	delete(r.members, m.id)
}

func byName(m *member, id state.NodeID) int { return strings.Compare(string(m.id), string(id)) }

// setListed sets whether the membership lists a member.
func (r *roster) setListed(m *member, listed bool) {
	switch {
	case listed && !m.listed:
		r.listed++
	case !listed && m.listed:
		r.listed--
	}
	m.listed = listed
}

// membershipSize is the number of other nodes by which the membership sets its
// own times: those that it lists, and those that it lost so recently that it
// still counts them. A node that is gone for longer, or is only named in streams,
// makes nothing slower.
func (r *roster) membershipSize() int { return max(r.listed, r.recent) }

// living returns the participants of a network that are taken for alive.
func (r *roster) living(name string) []state.NodeID {
	if r.cfg.Peers != nil {
		return r.cfg.Peers
	}
	if ts, ok := r.targets[name]; ok {
		return ts
	}
	var ts []state.NodeID
	if name == "" {
		for _, m := range r.ordered {
			if m.reachable() {
				ts = append(ts, m.id)
			}
		}
	} else {
		for _, id := range r.store.Participants(name) {
			if m := r.members[id]; m != nil && m.reachable() {
				ts = append(ts, id)
			}
		}
	}
	r.targets[name] = ts
	return ts
}

// countLiving returns how many participants of a network are taken for alive. It
// counts once per step: a join brings its members one by one, and each of them
// changes the number.
func (r *roster) countLiving(n *network) int {
	if n.livingCount == 0 || n.livingCountAt != r.now {
		n.livingCount, n.livingCountAt = len(r.living(n.name)), r.now
	}
	return n.livingCount
}

// pick returns up to k random members of from that are not in not, in random
// order.
func (r *roster) pick(from []state.NodeID, k int, not ...state.NodeID) []state.NodeID {
	out := make([]state.NodeID, 0, k)
	n := len(from)
	if n <= 2*k+len(not) {
		for _, i := range r.rng.Perm(n) {
			if p := from[i]; len(out) < k && p != r.cfg.Self && !slices.Contains(not, p) {
				out = append(out, p)
			}
		}
		return out
	}
	for tries := 0; len(out) < k && tries < 8*k; tries++ {
		p := from[r.rng.IntN(n)]
		if p != r.cfg.Self && !slices.Contains(not, p) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// takesPart reports whether a member takes part in a network. Every member takes
// part in the global scope.
func (r *roster) takesPart(peer state.NodeID, name string) bool {
	if name == "" {
		return true
	}
	_, ok := slices.BinarySearch(r.store.Participants(name), peer)
	return ok
}

// alone reports whether there is no other node to ask: this node knows no member,
// and either expects none or has waited long enough.
func (r *roster) alone() bool {
	return len(r.members) == 0 && (!r.cfg.ExpectPeers || r.now > claimPatience)
}

// smallNetwork reports whether so few nodes take part in a network, alive or not,
// that all of them may be asked.
func (r *roster) smallNetwork(n *network) bool {
	known := len(r.members)
	if n.name != "" {
		known = len(r.store.Participants(n.name))
	}
	return known <= smallTable
}

// provenOf returns those of some nodes that have shown that they exist.
func (r *roster) provenOf(ids []state.NodeID) []state.NodeID {
	var out []state.NodeID
	for _, id := range ids {
		if m := r.members[id]; m != nil && m.proven {
			out = append(out, id)
		}
	}
	return out
}

// provenCount is how many members have shown that they exist, at least one. What
// depends on the size of the mesh depends on that number: names are cheap.
func (r *roster) provenCount() int {
	n := 0
	for _, m := range r.ordered {
		if m.proven {
			n++
		}
	}
	return max(n, 1)
}

// provenAt reports whether a living member has shown that it is at an address.
func (r *roster) provenAt(addr netip.AddrPort) bool {
	return slices.ContainsFunc(r.ordered, func(m *member) bool {
		return m.addr == addr && m.proven && m.phase == phaseAlive
	})
}

// Where datagrams are lost and streams are not, as behind a firewall that forgot
// UDP, the membership falls back to streams and takes every node for alive.
// Repair does the same: a node that has heard no datagram for deafAfter, or whose
// probes a peer does not answer, compares over streams for streamsOnlyFor, and
// its peers answer over streams.
const (
	deafAfter      = 5 * time.Second
	streamsOnlyFor = 10 * time.Second
)

// deaf reports whether no datagram has arrived for a while.
func (r *roster) deaf() bool { return r.now-r.lastHeard > deafAfter }

// hearing reports whether datagrams arrive at this node.
func (r *roster) hearing() bool { return r.lastHeard > 0 && !r.deaf() }

// usesStream reports whether packets to a peer go over streams, since datagrams
// do not seem to arrive there.
func (r *roster) usesStream(peer state.NodeID) bool {
	m := r.members[peer]
	return m != nil && r.now < m.streamUntil
}

// addrOf is where a member is, as far as this node knows; the zero AddrPort: nowhere.
func (r *roster) addrOf(id state.NodeID) netip.AddrPort {
	if m := r.members[id]; m != nil {
		return m.addr
	}
	return netip.AddrPort{}
}
