package gossip

import (
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// This file owns the list of the other nodes and answers how many count, and who of
// them has to be looked at. Who takes part where and lives is living.go's.

// roster is the list of the other nodes. The other parts read members here; only
// liveness changes what becomes of them.
//
// There may be 200,000 members and many events a second, so nothing here is made anew
// when a member changes: whoever changes one calls update, which brings all lists in line.
//
// Invariant: as of each member's last update, the lists and counts are those of members.
type roster struct {
	*env

	// The members.

	members map[state.NodeID]*member // at most maxMembers that are known from packets alone
	ordered memberSet                // all of them, by name
	listed  int                      // by the membership
	recent  int                      // how many the membership may still count, at the last sweep; see membershipSize

	// What follows from them.

	proven    int                    // how many have shown that they exist
	retryable memberSet              // the dead that are pinged now and then
	watched   memberSet              // who is looked at each second, see member.needsLook
	places    map[netip.AddrPort]int // how many proven, living members are at each address
	hosts     hostCount              // at how many hosts members are that count (S12)
	networks  map[string]*living     // who lives, by network
	log       memberLog              // what networks have not taken over yet
	lastHeard time.Duration          // when the last packet came that can have been a datagram; see deaf
}

// newRoster returns the roster of a node that knows nobody.
func newRoster(e *env) roster {
	return roster{
		env: e, members: map[state.NodeID]*member{}, ordered: newMemberSet(), retryable: newMemberSet(),
		watched: newMemberSet(), places: map[netip.AddrPort]int{}, hosts: newHostCount(e.cfg.PreserveWindow),
		networks: map[string]*living{}, log: memberLog{first: 1},
	}
}

// deadMemory is about how long memberlist goes on to count a node that it takes
// for dead.
const deadMemory = 30 * time.Second

// maxMembers bounds the members that are known from packets alone. Core.Room tells of it.
const maxMembers = 200_000

// add adds a member.
func (r *roster) add(m *member) {
	r.ordered.set(m, true)
	r.members[m.id] = m
	r.update(m)
}

// remove removes a member.
func (r *roster) remove(m *member) {
	r.setListed(m, false)
	m.gone = true
	r.update(m)
	r.ordered.set(m, false)
	delete(r.members, m.id)
}

// listing is how a member stands in the roster's lists.
type listing struct {
	living    bool           // it is in the lists of the networks in which it takes part
	proven    bool           // likewise, and in roster.proven
	retryable bool           // it is in roster.retryable
	watched   bool           // it is in roster.watched
	place     netip.AddrPort // where it is in roster.places; invalid: nowhere
}

// update brings all lists in line with a member of which something has changed.
func (r *roster) update(m *member) {
	was := m.lists
	now := listing{
		living: !m.gone && m.reachable(), proven: !m.gone && m.proven, retryable: !m.gone && m.retryable(),
		watched: !m.gone && (was.watched || m.needsLook(r.now)),
	}
	if now.proven && m.phase == phaseAlive {
		now.place = m.addr
	}
	r.hosts.update(m, r.now)
	if now == was {
		return
	}
	m.lists = now
	if now.living != was.living || now.proven != was.proven {
		r.log.add(m.id)
	}
	if now.proven != was.proven {
		r.proven += map[bool]int{true: 1, false: -1}[now.proven]
	}
	if now.retryable != was.retryable {
		r.retryable.set(m, now.retryable)
	}
	if now.watched != was.watched {
		r.watched.set(m, now.watched)
	}
	if now.place != was.place {
		countAt(r.places, was.place, -1)
		countAt(r.places, now.place, 1)
	}
}

// unwatch ends the look at a member each second, if nothing calls for it any more.
func (r *roster) unwatch(m *member) {
	if m.lists.watched && !m.needsLook(r.now) {
		m.lists.watched = false
		r.watched.set(m, false)
	}
}

// countAt adds n to the count of an address, if it is one.
func countAt(counts map[netip.AddrPort]int, at netip.AddrPort, n int) {
	if !at.IsValid() {
		return
	}
	if counts[at] += n; counts[at] == 0 {
		delete(counts, at)
	}
}

// setListed sets whether the membership lists a member.
func (r *roster) setListed(m *member, listed bool) {
	switch {
	case listed && !m.listed:
		r.listed++
	case !listed && m.listed:
		r.listed--
	}
	m.listed = listed
	r.update(m)
}

// membershipSize is the number of other nodes by which the membership sets its
// own times: those that it lists, and those that it lost so recently that it
// still counts them. A node that is gone for longer, or is only named in streams,
// makes nothing slower.
func (r *roster) membershipSize() int { return max(r.listed, r.recent) }

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

// provenCount is how many members have shown that they exist, at least one. What
// depends on the size of the mesh depends on that number: names are cheap.
func (r *roster) provenCount() int { return max(r.proven, 1) }

// provenAt reports whether a living member has shown that it is at an address.
func (r *roster) provenAt(addr netip.AddrPort) bool { return r.places[addr] > 0 }

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
