package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// This file owns which peers the joiner remembers, and hands what changed of them over to
// be kept (G19).

// maxUnsaved bounds the changes that wait to be kept: above it all peers are kept anew.
const maxUnsaved = 1 << 14

// peerAnswered records that the membership reached a node where it lists it. That makes
// the node a peer to find again. Nodes of which others only speak are not remembered,
// nor kept on disk.
func (j *joiner) peerAnswered(id state.NodeID, a netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if id == j.self || j.listed[id] != a || !a.IsValid() {
		return
	}
	_, known := j.peers[id]
	if !known && len(j.peers) >= maxPeers {
		j.forgetOldest()
	}
	if j.peers[id].Addr != a {
		j.markUnsaved(id)
	}
	j.peers[id] = Peer{Name: id, Addr: a, Seen: time.Now()}
}

// evictionSample is among how many peers one is looked for that may be forgotten.
const evictionSample = 256

// forgetOldest drops the peer that was not seen for longest, of a sample: that costs the
// same however many there are. The caller holds mu.
func (j *joiner) forgetOldest() {
	var oldest state.NodeID
	looked := 0
	for id, p := range j.peers {
		if o, ok := j.peers[oldest]; !ok || p.Seen.Before(o.Seen) {
			oldest = id
		}
		if looked++; looked == evictionSample {
			break
		}
	}
	j.dropPeer(oldest)
}

// forgetPeer drops a peer that left in order.
func (j *joiner) forgetPeer(id state.NodeID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dropPeer(id)
	j.coords.forget(id)
}

// dropPeer drops a peer. The caller holds mu.
func (j *joiner) dropPeer(id state.NodeID) {
	if _, known := j.peers[id]; known {
		delete(j.peers, id)
		j.markUnsaved(id)
	}
}

// markUnsaved records that a peer is not kept as it is. The caller holds mu.
func (j *joiner) markUnsaved(id state.NodeID) {
	switch {
	case j.save == nil || j.unsavedAll:
	case len(j.unsaved) >= maxUnsaved:
		j.unsaved, j.unsavedAll = map[state.NodeID]struct{}{}, true
	default:
		j.unsaved[id] = struct{}{}
	}
}

// savePeers hands over what changed to be kept, or all peers if too much did, and at the
// end: what was not taken is handed over again.
func (j *joiner) savePeers(last bool) {
	if j.save == nil {
		return
	}
	j.mu.Lock()
	all := j.unsavedAll || last
	var changes []PeerChange
	for id := range j.unsaved {
		p, known := j.peers[id]
		if !known {
			p = Peer{Name: id}
		}
		changes = append(changes, PeerChange{Peer: p, Gone: !known})
	}
	j.unsaved, j.unsavedAll = map[state.NodeID]struct{}{}, false // a cleared map would stay as large as it ever was
	j.mu.Unlock()
	if all {
		changes = nil
	} else if len(changes) == 0 {
		return
	}
	if j.save(changes, j.peerList) == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if all {
		j.unsaved, j.unsavedAll = map[state.NodeID]struct{}{}, true
	}
	for i := range changes {
		j.markUnsaved(changes[i].Name)
	}
}

// peerList returns the peers, in no order.
func (j *joiner) peerList() []Peer {
	j.mu.Lock()
	defer j.mu.Unlock()
	ps := make([]Peer, 0, len(j.peers))
	for _, p := range j.peers {
		ps = append(ps, p)
	}
	return ps
}

// Peers returns the peers to remember, in no order.
func (h *Host) Peers() []Peer { return h.joiner.peerList() }

// PeerRoom returns how many nodes are remembered to be found again, and may be.
func (h *Host) PeerRoom() Room { return h.joiner.room() }

func (j *joiner) room() Room {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Room{
		Held: len(j.peers), Limit: maxPeers, what: "nodes are remembered to be found again",
		beyond: "those that were not seen for longest are forgotten",
	}
}
