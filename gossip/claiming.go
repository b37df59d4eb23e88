package gossip

import "time"

// markCompared notes that a network was compared with another node: all that it has of
// the network is known here.
func (n *network) markCompared() {
	n.table.SetSynced()
	n.compared = true
}

// aloneFor is how long a node that expects nobody must have been alone until
// its claims count like any other's: a mesh of one node is a mesh.
const aloneFor = 5 * time.Minute

// provisional reports whether what this node claims in a network is provisional,
// since there may be claims that nobody told it of: it has compared the network
// with nobody, and others take part, or it does not know who does (V11).
func (k *claims) provisional(n *network) bool {
	switch {
	case n.compared, k.cfg.Peers != nil:
		return false
	case !k.nets.byName[""].compared:
		return !k.roster.alone() || k.cfg.ExpectPeers || k.now-n.joinedAt < aloneFor
	}
	for _, id := range k.store.Participants(n.name) {
		if id != k.cfg.Self {
			return true
		}
	}
	return false
}

// reviseProvisional looks at the claims again in networks where they are provisional no
// longer.
func (k *claims) reviseProvisional() {
	for _, n := range k.nets.byName {
		if n.carrier != nil && n.carrier.Provisional && !k.provisional(n) {
			n.carryAt = max(k.now, 1)
		}
	}
}

// publisher pushes what this node has written to its own stream of a network.
type publisher interface {
	pushOwn(n *network)
}

// claims keeps claims.
type claims struct {
	*env
	roster *roster
	outbox *outbox
	nets   *nets
	push   publisher
}
