package gossip

import (
	"cmp"
	"slices"
	"time"

	"meshd/state"
)

// This file owns the requests for what this node lacks: which stream was asked of
// which peer, and whom to ask next (G3). Answers come in through intake.

// pull asks peers for what this node lacks.
//
// Invariant: perPeer[p] is how many of pulls are at p, at most maxPullsAt; pulls holds
// at most maxPulls.
type pull struct {
	*env
	outbox *outbox
	nets   *nets

	pulls   map[streamKey]*pending
	perPeer map[state.NodeID]int
	due     time.Duration // no deadline of a pull is before; of no meaning without pulls
	rtt     time.Duration // how long small pulls take, smoothed

	measured bool // rtt is not the guess of the beginning
}

// newPull returns a pull with nothing under way.
func newPull(e *env, o *outbox, n *nets) pull {
	return pull{
		env: e, outbox: o, nets: n, pulls: map[streamKey]*pending{}, perPeer: map[state.NodeID]int{},
		rtt: e.cfg.WantTimeout / 8,
	}
}

// pending is a want that is under way.
type pending struct {
	peer     state.NodeID   // who is asked
	others   []state.NodeID // who else has it, at most three
	sentAt   time.Duration
	deadline time.Duration // when it is tried again, or first sent
	sent     bool          // false: the push may still arrive, so it waits a moment
	small    bool          // the answer should be one datagram
	tries    int           // how often it was sent
}

// The bounds of the pulls under way, in all and at one peer: a node that names
// streams which nobody has must not keep this one from asking others (G7, G13).
const (
	maxPulls   = 1 << 14
	maxPullsAt = maxPulls / 4
)

// maxTries is how often a small pull is sent before it is left to repair.
const maxTries = 4

// smallGap is how many versions a small pull may lack.
const smallGap = 16

// lack is a want, and whether its answer should be one datagram.
type lack struct {
	state.Want
	small bool
}

// lackOf returns what a replica that wants w lacks of a stream whose head is h.
func lackOf(w state.Want, h state.Head) lack {
	have := uint64(0)
	if w.Inc == h.Inc && !w.Snapshot {
		have = min(w.After, h.Version)
	}
	return lack{w, h.Version-have <= smallGap}
}

// hasRoom reports whether one more stream may be asked of a peer.
func (u *pull) hasRoom(at state.NodeID) bool {
	return len(u.pulls) < maxPulls && u.perPeer[at] < maxPullsAt
}

// set registers a pull in place of the stream's former one.
func (u *pull) set(key streamKey, p *pending) {
	u.drop(key)
	u.pulls[key] = p
	u.perPeer[p.peer]++
}

// drop forgets a pull. Its peer may only be changed afterwards.
func (u *pull) drop(key streamKey) {
	p := u.pulls[key]
	if p == nil {
		return
	}
	delete(u.pulls, key)
	if u.perPeer[p.peer]--; u.perPeer[p.peer] == 0 {
		delete(u.perPeer, p.peer)
	}
}

// dropAt forgets a pull if it is at that peer.
func (u *pull) dropAt(key streamKey, peer state.NodeID) {
	if p := u.pulls[key]; p != nil && p.peer == peer {
		u.drop(key)
	}
}

// dropNetwork forgets the pulls of a network.
func (u *pull) dropNetwork(name string) {
	for k := range u.pulls {
		if k.network == name {
			u.drop(k)
		}
	}
}

// markSent registers a pull that is sent now.
func (u *pull) markSent(key streamKey, p *pending) {
	p.sentAt, p.sent = u.now, true
	wait := u.cfg.WantTimeout
	if p.small {
		wait = min(wait, max(8*time.Millisecond, 5*u.rtt)<<p.tries)
	}
	p.tries++
	u.schedule(key, p, u.now+u.jitter(wait))
}

// schedule registers a pull with its deadline.
func (u *pull) schedule(key streamKey, p *pending, until time.Duration) {
	p.deadline = until
	if len(u.pulls) == 0 || until < u.due {
		u.due = until
	}
	u.set(key, p)
}

// answered ends a pull, and measures how long it took.
func (u *pull) answered(key streamKey, from state.NodeID) {
	p := u.pulls[key]
	if p == nil {
		return
	}
	if p.sent && p.small && p.tries == 1 && p.peer == from {
		if took := u.now - p.sentAt; u.measured {
			u.rtt += (took - u.rtt) / 8
		} else {
			u.rtt, u.measured = took, true
		}
	}
	u.drop(key)
}

// request asks a peer for several streams, in as few packets as they fit. Streams
// that are already asked of another peer are left out.
func (u *pull) request(from state.NodeID, n *network, ws []lack) {
	var todo []state.Want
	for _, w := range ws {
		key := streamKey{n.name, w.Owner}
		p := u.pulls[key]
		if p != nil && u.now < p.deadline && !u.seemsLost(p, from) {
			if p.peer != from && len(p.others) < 3 && !slices.Contains(p.others, from) {
				p.others = append(p.others, from)
			}
			continue
		}
		if !u.hasRoom(from) {
			break // G7: repair finds the rest again
		}
		next := &pending{peer: from, small: w.small}
		if p != nil && u.now < p.deadline {
			next.tries = p.tries
		}
		u.markSent(key, next)
		todo = append(todo, w.Want)
	}
	u.sendWants(from, n, todo)
}

// fewPulls is up to how many pulls may be under way for a second peer to be asked
// soon, and soonLost how soon: then it is rather a packet that was lost than many
// answers that are on their way.
const (
	fewPulls = 16
	soonLost = 2 * time.Millisecond
)

// seemsLost reports whether the answer to a pull has probably been lost, so that
// another peer that has the stream is asked without waiting for the deadline: once,
// and only for a small answer, which costs little if it comes twice.
func (u *pull) seemsLost(p *pending, from state.NodeID) bool {
	return p.sent && p.small && p.tries == 1 && p.peer != from && len(u.pulls) <= fewPulls && u.now-p.sentAt >= soonLost
}

// requestOne asks a peer for what this node lacks of one stream, whose head is h.
func (u *pull) requestOne(from state.NodeID, n *network, w state.Want, h state.Head) {
	u.request(from, n, []lack{lackOf(w, h)})
}

// requestSoon asks after a moment: the missing push is probably on its way.
func (u *pull) requestSoon(from state.NodeID, n *network, w state.Want) {
	key := streamKey{n.name, w.Owner}
	if p := u.pulls[key]; p != nil {
		if p.peer != from && len(p.others) < 3 && !slices.Contains(p.others, from) {
			p.others = append(p.others, from)
		}
		return
	}
	if u.hasRoom(from) {
		u.schedule(key, &pending{peer: from, small: true}, u.now+u.cfg.Coalesce)
	}
}

// sendWants sends wants to a peer.
func (u *pull) sendWants(to state.NodeID, n *network, ws []state.Want) {
	for len(ws) > 0 { // a want takes at most 40 bytes and a name
		k := min(len(ws), 512)
		e := u.newPacket()
		e.wants(n.name, ws[:k])
		u.Stats.Wants += uint64(k)
		u.outbox.send(to, e)
		ws = ws[k:]
	}
}

// retry sends the pulls again whose time is up: to another peer that has the
// stream, or to the same one if the answer is small, for then it was probably
// lost.
func (u *pull) retry() {
	if len(u.pulls) == 0 || u.now < u.due {
		return
	}
	var due []streamKey
	u.due = time.Duration(1<<63 - 1)
	for k, p := range u.pulls {
		if u.now >= p.deadline {
			due = append(due, k)
		} else {
			u.due = min(u.due, p.deadline)
		}
	}
	slices.SortFunc(due, func(a, b streamKey) int {
		return cmp.Or(cmp.Compare(a.network, b.network), cmp.Compare(a.owner, b.owner))
	})
	again := map[streamKey][]state.Want{} // by network and the peer to ask
	var order []streamKey
	for _, k := range due {
		p, n := u.pulls[k], u.nets.byName[k.network]
		u.drop(k)
		if n == nil || !u.chooseNextPeer(p) || !u.hasRoom(p.peer) {
			continue
		}
		u.markSent(k, p)
		to := streamKey{k.network, p.peer}
		if again[to] == nil {
			order = append(order, to)
		}
		again[to] = append(again[to], n.table.WantNext(k.owner))
	}
	for _, to := range order {
		u.sendWants(to.owner, u.nets.byName[to.network], again[to])
	}
}

// chooseNextPeer sets whom to ask next, or reports false: repair will find what
// is missing.
func (u *pull) chooseNextPeer(p *pending) bool {
	if !p.sent {
		return true
	}
	u.Stats.PullTimeouts++
	if len(p.others) > 0 {
		p.peer, p.others = p.others[0], p.others[1:]
		return true
	}
	return p.small && p.tries < maxTries
}
