package gossip

import (
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// What is too large to be pushed is announced to random peers, and what was pushed
// is mentioned again to one peer each at a time ("I have"): whoever misses it pulls.
// This file owns the lists of both; it is a part of push.

// hint is a stream that is to be announced.
type hint struct {
	owner state.NodeID
	from  state.NodeID // who mentioned it; "": this node wrote it
}

// advertise announces a stream whose newest version is too large to push: random
// participants are sent its head, and pull. All streams that one packet brought
// are announced together, when it has been handled.
func (p *push) advertise(n *network, owner, from state.NodeID) {
	p.hints[n.name] = append(p.hints[n.name], hint{owner, from})
	if !p.outbox.handlesPacket() {
		p.announce()
	}
}

// announce sends the hints that wait, in as few packets as they fit.
func (p *push) announce() {
	if len(p.hints) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(p.hints)) {
		if n := p.nets.byName[name]; n != nil {
			p.announceNetwork(n, p.hints[name])
		}
	}
	clear(p.hints)
}

// announceNetwork sends the hints of one network to random participants.
func (p *push) announceNetwork(n *network, hints []hint) {
	not := []state.NodeID{hints[0].from} // the hints of one packet all have the same
	if len(hints) == 1 {
		not = append(not, hints[0].owner)
	}
	seen := make(map[state.NodeID]bool, len(hints))
	heads := make([]state.OwnerHead, 0, len(hints))
	for _, t := range hints {
		if h, ok := n.table.Head(t.owner); ok && !seen[t.owner] {
			seen[t.owner] = true
			heads = append(heads, state.OwnerHead{Owner: t.owner, Head: h})
		}
	}
	for _, to := range p.roster.pick(p.roster.living(n.name), p.cfg.Fanout, not...) {
		p.sendHints(to, n, heads)
	}
}

// sendHints sends the heads of streams to one peer, its own stream left out.
func (p *push) sendHints(to state.NodeID, n *network, heads []state.OwnerHead) {
	var some []state.OwnerHead
	room := p.cfg.Datagram - 128
	say := func() {
		if len(some) > 0 {
			e := p.newPacket()
			e.heads(frameHot, n.name, 0, nil, false, some)
			p.outbox.send(to, e)
		}
		some, room = nil, p.cfg.Datagram-128
	}
	for _, h := range heads {
		if h.Owner == to {
			continue
		}
		if room -= len(h.Owner) + 32; room < 0 {
			say()
			room -= len(h.Owner) + 32
		}
		some = append(some, h)
	}
	say()
}

// maxHot bounds the list of recent news per network.
const maxHot = 64

// recordNews records that a stream has changed: repair gets busy, and random
// peers will be sent its head.
func (p *push) recordNews(n *network, owner state.NodeID) {
	p.pace.newsCame()
	if len(n.hot) >= maxHot {
		n.hot = append(n.hot[:0], n.hot[maxHot/2:]...)
	}
	n.hot = append(n.hot, hotHead{owner, p.now})
	p.hot[n] = struct{}{}
	p.lastNews = p.now
	if len(p.hotTimes) == 0 {
		p.planHints()
	}
}

// hintTurns is how often news is mentioned again.
const hintTurns = 3

// planHints sets when recent news is mentioned again: when its push is over, soon
// after that for those who did not get the first hint, and once more.
func (p *push) planHints() {
	j := p.jitter(p.cfg.HotAfter)
	p.hotTimes = append(p.hotTimes[:0], p.now+j, p.now+7*j/4, p.now+9*p.cfg.HotAfter+j/2)
}

// isFresh reports whether a stream changed so recently that its push is still
// under way.
func (p *push) isFresh(n *network, o state.NodeID) bool {
	for i := len(n.hot) - 1; i >= 0 && p.now-n.hot[i].at < p.spreadTime(); i-- {
		if n.hot[i].owner == o {
			return true
		}
	}
	return false
}

// spreadTime is how long the push of a change takes to reach nearly all; no hint
// about it is sent before.
func (p *push) spreadTime() time.Duration { return p.cfg.HotAfter * 3 / 4 }

// sendHot sends one participant per network the heads of the streams that changed
// recently: a node that missed the push pulls without waiting for repair. Whom each
// node tells is not left to chance, as the push is: every participant is told by one
// other in each turn, see ringPeer.
func (p *push) sendHot() {
	if len(p.hotTimes) == 0 || p.now < p.hotTimes[0] {
		return
	}
	turn := hintTurns - len(p.hotTimes)
	p.hotTimes = p.hotTimes[1:]
	for _, n := range p.hotNetworks() {
		hs := p.hotHeads(n, p.now-11*p.cfg.HotAfter, p.cfg.Datagram-128)
		if len(hs) == 0 {
			delete(p.hot, n)
			continue
		}
		if to, ok := p.roster.ringPeer(p.roster.living(n.name), turn); ok {
			e := p.newPacket()
			e.heads(frameHot, n.name, 0, nil, false, hs)
			p.Stats.HotSent++
			p.outbox.send(to, e)
		}
	}
	if len(p.hotTimes) == 0 && p.now-p.lastNews < p.spreadTime() {
		p.planHints() // the last turn came too early for it
	}
}

// hotNetworks returns the networks with recent news, sorted.
func (p *push) hotNetworks() []*network {
	ns := make([]*network, 0, len(p.hot))
	for n := range p.hot {
		if p.nets.byName[n.name] == n {
			ns = append(ns, n)
		} else {
			delete(p.hot, n)
		}
	}
	slices.SortFunc(ns, func(a, b *network) int { return strings.Compare(a.name, b.name) })
	return ns
}

// hotHeads returns the heads of the streams that changed since then, newest
// first, as many as fit into budget bytes.
func (p *push) hotHeads(n *network, since time.Duration, budget int) []state.OwnerHead {
	seen := map[state.NodeID]bool{}
	var hs []state.OwnerHead
	for i := len(n.hot) - 1; i >= 0 && n.hot[i].at >= since; i-- {
		o := n.hot[i].owner
		if seen[o] {
			continue
		}
		seen[o] = true
		if h, ok := n.table.Head(o); ok {
			if budget -= len(o) + 32; budget < 0 {
				break
			}
			hs = append(hs, state.OwnerHead{Owner: o, Head: h})
		}
	}
	return hs
}
