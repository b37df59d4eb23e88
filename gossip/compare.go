package gossip

import "meshd/state"

// How two lists of heads are compared, and what follows from each difference.
// Part of repair; it decides, and sends nothing itself.

// compareHeads matches a peer's heads with ours. With ours nil, the peer's list
// is partial: what it does not mention means nothing. compareHeads reports
// whether this node lacks something, and whether the peer does.
func (r *repair) compareHeads(from state.NodeID, n *network, theirs, ours []state.OwnerHead) (lacks, lacking bool) {
	var wants []lack
	var offers []state.Want
	known := make(map[state.NodeID]state.OwnerHead, len(theirs))
	for _, h := range theirs {
		known[h.Owner] = h
		if h.Owner == r.cfg.Self && !r.yielded {
			r.own.defend(n, h.Head, h.Retired)
			continue
		}
		if h.Retired {
			r.onRetiredHead(n, h)
			continue
		}
		if h.Kept {
			continue
		}
		if h.Owner == from {
			n.table.OwnerSays(h.Owner, h.Head)
		}
		if w, need := n.table.Want(h.Owner, h.Head); need {
			wants = append(wants, lackOf(w, h.Head))
		}
	}
	for _, o := range ours {
		h, ok := known[o.Owner]
		switch {
		case o.Retired, o.Kept, ok && (h.Retired || h.Kept || o.Head.Compare(h.Head) <= 0), r.news.isFresh(n, o.Owner):
		case !ok:
			offers = append(offers, state.Want{Owner: o.Owner})
		default:
			offers = append(offers, state.Want{Owner: o.Owner, Inc: h.Head.Inc, From: h.Head.Version, After: h.Head.Version})
		}
	}
	r.serve(from, n, offers)
	r.pull.request(from, n, wants)
	return len(wants) > 0, len(offers) > 0
}

// onRetiredHead handles a head whose stream a peer has dropped. If the owner is
// dead here too, this node drops the stream as well: otherwise the dead would be
// handed on for ever (S9).
func (r *repair) onRetiredHead(n *network, h state.OwnerHead) {
	m := r.roster.members[h.Owner]
	own, ok := n.table.Head(h.Owner)
	if m != nil && ok && own.Inc <= h.Head.Inc && livenessOf(m.phase) == state.Dead {
		n.table.Retire(h.Owner)
	}
	if ok && !r.reaper.waitsFor(h.Owner) {
		r.store.DropAbandoned(h.Owner)
	}
}
