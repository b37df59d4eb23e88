package gossip

import (
	"time"

	"meshd/state"
)

// This file owns how a node shows all others at once that it lives, when some of them
// have been told that it is dead (G21).

// refutation writes a beacon when others are asked to ping this node: somebody checks
// whether it lives. A change of its own reaches all nodes within milliseconds, for
// about a kilobyte each, whoever among them has been told that it is dead.
type refutation struct {
	*env
	roster *roster
	outbox *outbox

	asker   state.NodeID  // on whose behalf this node was last pinged by another
	askedAt time.Duration // when that was
	wroteAt time.Duration // when this node last wrote one; 0: never
	mesh    bucket        // beacons of all nodes, as far as this one heard of them
}

const (
	refuteInterval = 250 * time.Millisecond // between two refutations of one node
	askersWithin   = time.Second            // within which two nodes have to ask
)

// refuteRate bounds the refutations of the whole mesh: a peer with the key that has
// everybody pinged makes each node write one, and then 32 a second in all.
var refuteRate = rate{bytes: 1 << 20, packets: 32, seconds: 8}

// asked hears that another node pinged this one on behalf of asker. One asker alone
// gets its answer, and perhaps only asker does not reach this node, or nobody: so two
// have to ask. Where all ping a suspect, there is nothing to tell them.
func (r *refutation) asked(asker state.NodeID) {
	m := r.roster.members[asker]
	if m == nil || !m.proven || r.left() || r.yielded || !r.roster.sharesChecks() {
		return
	}
	first := r.asker == "" || r.asker == asker || r.now-r.askedAt > askersWithin
	r.asker, r.askedAt = asker, r.now
	if first || r.wroteAt > 0 && r.now-r.wroteAt < refuteInterval {
		return
	}
	r.mesh.refill(refuteRate, r.now)
	if r.mesh.empty(refuteRate) {
		r.Stats.RefutationsDropped++
		return
	}
	r.mesh.take(0)
	r.wroteAt = max(r.now, 1)
	r.Stats.Refutations++
	r.outbox.emit(Event{Kind: EventBeacon, Node: r.cfg.Self})
}

// heard counts a beacon of another node. What is counted is bounded by the size of the
// mesh, so that made-up beacons end refutations for no longer than honest ones would.
func (r *refutation) heard() {
	r.mesh.refill(refuteRate, r.now)
	if r.mesh.packets < refuteRate.packets*refuteRate.seconds+float64(r.roster.observers()) {
		r.mesh.take(0)
	}
}
