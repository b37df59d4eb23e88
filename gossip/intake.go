package gossip

import (
	"slices"

	"meshd/state"
)

// This file merges the deltas that arrive and tells each neighbour what follows:
// push relays, pull ends, liveness hears of owners, fetch of networks. It owns no
// state.

// intake merges the deltas that arrive.
type intake struct {
	// What it stands on.

	*env
	roster *roster // who is a member
	outbox *outbox // where answers and events go
	nets   *nets   // which tables there are

	// Who hears what follows from a delta.

	goodbyes    *goodbyes    // an owner wrote after its goodbye
	liveness    *liveness    // an owner appeared, moved or left
	push        *push        // news to relay or to announce
	pull        *pull        // a want is answered, or the next one follows
	fetch       *fetch       // a part of a table came; a node joined a network
	incarnation *incarnation // a peer sends this node's own stream
	reaper      *reaper      // an owner begins a new life
	refutation  *refutation  // an owner wrote a beacon
}

// onDeltas handles deltas, pushed or asked for.
func (t *intake) onDeltas(from state.NodeID, typ byte, p []byte) error {
	d := decoder{b: p}
	hops := 0
	var last *network
	if typ == framePush {
		hops = int(d.byte()) + 1
	}
	var first error
	for len(d.b) > 0 && d.err == nil {
		x := d.delta()
		if d.err != nil {
			break
		}
		t.Stats.DeltasIn++
		last = t.nets.byName[x.Network]
		if err := t.apply(from, x, typ == framePush, hops); err != nil && first == nil {
			first = err
		}
	}
	if last != nil && typ == frameDelta {
		t.fetch.partArrived(last, from)
	}
	if d.err != nil {
		return d.err
	}
	return first
}

// apply merges one delta and does what follows from the result.
func (t *intake) apply(from state.NodeID, x *state.Delta, pushed bool, hops int) error {
	n := t.nets.byName[x.Network]
	if n == nil {
		return nil
	}
	if x.Owner == t.cfg.Self && !t.yielded {
		t.incarnation.defend(n, x.Head(), false)
		return nil
	}
	was, known := n.table.Head(x.Owner)
	r, err := t.store.Apply(x)
	if (r == state.Applied || r == state.Gap) && (!x.Snapshot || len(x.Records) > 0) { // else it is a goodbye (S9)
		if pushed {
			t.liveness.changePushed(x.Owner, slices.ContainsFunc(x.Records, isBeacon))
		} else if from != x.Owner {
			t.liveness.changePulled(x.Owner)
		}
	}
	key := streamKey{x.Network, x.Owner}
	switch r {
	case state.Ignored:
		t.Stats.Duplicates++
		t.correctOwner(n, from, x)
	case state.Applied:
		t.pull.answered(key, from)
		t.afterApply(n, from, x, pushed, hops, known)
		if n.name == "" {
			t.goodbyes.ownerWrote(x.Owner, was)
		}
		if w, need := n.table.Want(x.Owner, x.Head()); err != nil && need {
			t.pull.requestOne(from, n, w, x.Head())
		}
	case state.Staged:
		if w, need := n.table.Want(x.Owner, x.Head()); need {
			t.pull.drop(key)
			t.pull.requestOne(from, n, w, x.Head())
		}
	case state.Gap:
		t.Stats.Gaps++
		if w, need := n.table.Want(x.Owner, x.Head()); need {
			t.pull.requestSoon(from, n, w)
		}
	}
	return err
}

func isBeacon(r state.Record) bool { return r.Kind == state.KindBeacon }

// correctOwner sends an owner the head of its own stream when this node holds
// more of it than the owner says: the owner lost its disk or went back to an
// older one, and has to start a higher incarnation (S7).
func (t *intake) correctOwner(n *network, from state.NodeID, x *state.Delta) {
	h, ok := n.table.Head(x.Owner)
	if from != x.Owner || !ok || h.Inc < x.Inc || h.Inc == x.Inc && (!x.Snapshot || h == x.Head()) {
		return
	}
	e := t.newPacket()
	e.heads(frameHot, n.name, 0, nil, false, []state.OwnerHead{{Owner: x.Owner, Head: h}})
	t.outbox.send(from, e)
}

// afterApply relays news and looks at what the global scope says.
func (t *intake) afterApply(n *network, from state.NodeID, x *state.Delta, pushed bool, hops int, known bool) {
	t.Stats.Applied++
	t.push.recordNews(n, x.Owner)
	hereOnly := !pushed && n.fetching(t.now)
	if !known {
		t.liveness.learnOwner(x.Owner)
	}
	if n.name == "" {
		t.afterGlobalDelta(x)
	}
	switch {
	case hereOnly:
	case pushed:
		t.push.enqueue(pushItem{delta: x, from: from, hops: hops})
	case x.Whole() && !x.Snapshot && deltaSize(x) <= t.cfg.Datagram-64:
		// It was pulled because its push was lost or a peer mentioned it. It may be new to
		// others too, so recordNews has some of them sent its head; it is not pushed again.
	default:
		t.push.advertise(n, x.Owner, from)
	}
}

// afterGlobalDelta acts on changes of the global scope: who takes part where,
// beacons, addresses, goodbyes.
func (t *intake) afterGlobalDelta(x *state.Delta) {
	for i := range x.Records {
		r := &x.Records[i]
		switch r.Kind {
		case state.KindMember:
			if n := t.nets.byName[r.Key]; n != nil && !r.Deleted {
				t.fetch.compareWith(n, x.Owner)
			}
		case state.KindBeacon:
			t.refutation.heard()
			if stamp, err := state.ParseBeacon(r.Body); err == nil && !r.Deleted {
				t.outbox.emit(Event{Kind: EventBeacon, Node: x.Owner, Stamp: stamp})
			}
		case state.KindNode:
			t.liveness.learnAddr(x.Owner)
		}
	}
	if x.Snapshot {
		t.reaper.later(x.Owner)
		if m := t.roster.members[x.Owner]; m != nil && len(x.Records) == 0 && x.To > 1 {
			t.liveness.observe(m, signGoodbyeHeard) // the last, empty snapshot: a goodbye (S9)
		}
	}
}
