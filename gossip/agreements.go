package gossip

import "meshd/state"

// Pairs of table hashes that differ, and still leave nothing to do. Part of
// repair; the pairs lie in their network.

// agreement is a pair of hashes of tables that differ in nothing that either node has
// to send the other: each node finds out by itself that an owner is dead, and from
// then on offers its streams for StopOfferingAfter and drops them after DropAfter.
// Until the last node has done so the tables differ in that, and would be compared
// head by head at every probe (G4).
type agreement struct{ ours, theirs uint64 }

// maxAgreements is how many pairs a network remembers: as a rule, more than there
// are kinds of nodes by what they have put away.
const maxAgreements = 8

// agreesWith reports whether there is nothing to send to a peer whose table has
// that hash, nor to ask of it.
func (n *network) agreesWith(theirs uint64) bool {
	ours := n.table.Hash()
	return ours == theirs || n.remembers(agreement{ours, theirs})
}

// remembers reports whether a pair is one of the network's agreements.
func (n *network) remembers(a agreement) bool {
	for _, b := range n.agreements {
		if a == b {
			return true
		}
	}
	return false
}

// rememberAgreement remembers that the comparison of a peer's heads left nothing
// to do, though the tables have different hashes. It sends the peer this node's
// heads, so that the peer remembers it too.
func (r *repair) rememberAgreement(from state.NodeID, n *network, f headsFrame, ours []state.OwnerHead) {
	a := agreement{n.table.Hash(), n.table.HashWith(f.n, f.buckets, f.heads)}
	if a.ours == a.theirs || n.remembers(a) || !r.differOnlyInDead(f.heads, ours) {
		return
	}
	n.agreements[n.nextAgreement] = a
	n.nextAgreement = (n.nextAgreement + 1) % maxAgreements
	e := r.newPacket()
	e.heads(frameHeads, n.name, f.n, f.buckets, true, n.table.HeadsIn(f.n, f.buckets))
	r.outbox.send(from, e)
}

// differOnlyInDead reports whether two lists of heads differ only in owners that
// are dead here.
func (r *repair) differOnlyInDead(theirs, ours []state.OwnerHead) bool {
	left := make(map[state.NodeID]state.OwnerHead, len(ours))
	for _, o := range ours {
		left[o.Owner] = o
	}
	dead := func(o state.NodeID) bool { return o != r.cfg.Self && !r.store.Liveness(o).Answers() }
	for _, h := range theirs {
		o, ok := left[h.Owner]
		if delete(left, h.Owner); (!ok || o != h) && !dead(h.Owner) {
			return false
		}
	}
	for id := range left {
		if !dead(id) {
			return false
		}
	}
	return true
}
