package gossip

import (
	"slices"
	"time"

	"meshd/state"
)

// round compares table hashes with random participants (G4). Every round
// starts with another network and goes on until all were compared, or
// roundPackets were sent: the next round starts where this one ended, so that
// every network is compared equally often, however many there are.
func (r *repair) round() {
	r.pace.nextRound()
	var todo []*network
	slots := r.fetch.free()
	for i := range r.nets.order {
		n := r.nets.byName[r.nets.order[(r.firstCompared+i)%len(r.nets.order)]]
		switch {
		case n.table.View().Synced():
		case n.fetching(r.now) || slots <= 0:
			continue
		default:
			slots--
		}
		todo = append(todo, n)
	}
	for sent := 0; len(todo) > 0 && sent < roundPackets; {
		to := r.partner(todo[0])
		if len(to) == 0 {
			if r.roster.alone() || todo[0].name != "" && r.store.Global().View().Synced() { // nobody else takes part
				todo[0].table.SetSynced()
			}
			todo = todo[1:]
			continue
		}
		var ns []*network
		ns, todo = r.probes.shared(to[0], todo, r.probes.perDatagram())
		r.probes.send(to[0], ns)
		sent++
	}
	r.firstCompared = (r.firstCompared + 1) % len(r.nets.order)
	if len(todo) > 0 {
		r.firstCompared, _ = slices.BinarySearch(r.nets.order, todo[0].name)
	}
}

// partner returns a random participant of a network to be compared with, none or
// one. Every other time it is one that showed that it is there, if any did: what
// somebody made up may be listed by the thousand.
func (r *repair) partner(n *network) []state.NodeID {
	from := r.roster.living(n.name)
	if r.preferProven = !r.preferProven; r.preferProven && len(from) > smallTable {
		if proven := r.roster.provenOf(from); len(proven) > 0 {
			from = proven
		}
	}
	return r.roster.pick(from, 1)
}

// roundPackets bounds what one round of repair sends.
const roundPackets = 4

// shared returns the first of some networks, and up to room in all of those
// that a peer takes part in as well; and the rest.
func (p *probes) shared(to state.NodeID, from []*network, room int) (ns, rest []*network) {
	for i, n := range from {
		if len(ns) < room && (i == 0 || p.cfg.Peers != nil || p.roster.takesPart(to, n.name)) {
			ns = append(ns, n)
		} else {
			rest = append(rest, n)
		}
	}
	return ns, rest
}

// perDatagram is of how many networks a datagram holds the hashes.
func (p *probes) perDatagram() int {
	return max(1, min(maxProbed, (p.cfg.Datagram-len(p.newPacket().b)-8)/probedSize))
}

// send sends a peer the hashes of networks, in as few datagrams as they fit.
func (p *probes) send(to state.NodeID, ns []*network) {
	m := p.roster.members[to]
	lost := m != nil && m.listed && (p.roster.deaf() || p.liveness.undelivered(m))
	if lost {
		m.streamUntil = p.now + streamsOnlyFor
	}
	for part := range slices.Chunk(ns, p.perDatagram()) {
		// What the peer asked of us is not asked of it in turn: two nodes would hold
		// each other to streams for ever.
		f := probeFrame{stream: lost, ack: p.roster.usesStream(to)}
		for _, n := range part {
			n.probedAt = p.now
			if !n.table.View().Synced() {
				n.answerDue = p.now + fetchPatience
			}
			t := tableHash{n.hash, n.table.Hash()}
			if n.name == "" {
				f.tables = slices.Insert(f.tables, 0, t) // it takes less there
			} else {
				f.tables = append(f.tables, t)
			}
			f.ack = f.ack || !n.table.View().Synced()
		}
		e := p.newPacket()
		e.probe(frameProbe, f)
		p.Stats.Probes++
		p.outbox.send(to, e)
	}
}

// Compared returns how long ago the hash of a network's table was last sent to
// a peer; the time since the node's start if it never was.
func (c *Core) Compared(name string) time.Duration {
	n := c.nets.byName[name]
	if n == nil {
		return 0
	}
	return c.now - n.probedAt
}

// comparison is a network to be compared with one peer.
type comparison struct {
	to state.NodeID
	n  *network
}

// Bounds of greetings: how many may wait for the end of a step, to how many
// peers a network that is not yet synced goes at once and within askWindow (but
// see mayAsk), and of how many networks one peer is asked: whole tables come
// back.
const (
	maxComparisons = 1024
	peersPerAsk    = 3
	askWindow      = 2 * time.Second
	tablesPerAsk   = 16
)

// compareWith compares a network with a participant that appeared, if we are one of
// the few who should, so that a join is not answered by everybody at once. A
// network that is not yet synced asks for itself instead: whoever appears where
// few take part, else a few of them. All that happens at the end of the step, in
// as few packets as it takes.
func (f *fetch) compareWith(n *network, peer state.NodeID) {
	switch {
	case peer == f.cfg.Self || f.cfg.Peers != nil:
	case !n.table.View().Synced():
		if f.roster.smallNetwork(n) && !n.fetching(f.now) && len(f.comparisons) < maxComparisons {
			f.comparisons = append(f.comparisons, comparison{peer, n})
			break
		}
		if len(n.appeared) < smallTable {
			n.appeared = append(n.appeared, peer)
		}
		f.request(n)
	case len(f.comparisons) < maxComparisons:
		if k := f.roster.countLiving(n); k <= peersPerAsk || f.drawFor(peer)*float64(k) < peersPerAsk {
			f.comparisons = append(f.comparisons, comparison{peer, n})
		}
	}
}

// smallNetwork reports whether few take part in a network, whether they live or not.
func (r *roster) smallNetwork(n *network) bool {
	known := len(r.members)
	if n.name != "" {
		known = len(r.store.Participants(n.name))
	}
	return known <= smallTable
}

// drawFor returns a random number from 0 to 1, in one step the same for a peer:
// whoever greets it for one network does so for all.
func (f *fetch) drawFor(peer state.NodeID) float64 {
	if f.drawn == nil || f.drawn.peer != peer {
		f.drawn = &draw{peer, f.rng.Float64()}
	}
	return f.drawn.value
}

type draw struct {
	peer  state.NodeID
	value float64
}

// request asks some participants for a network's table at the end of the step.
func (f *fetch) request(n *network) {
	if !n.askQueued && !n.table.View().Synced() && !n.fetching(f.now) && f.cfg.Peers == nil {
		n.askQueued = true
		f.askQueue = append(f.askQueue, n)
	}
}

// flush sends the greetings of this step.
func (f *fetch) flush() {
	f.drawn = nil
	for len(f.comparisons) > 0 {
		to := f.comparisons[0].to
		var ns []*network
		f.comparisons = slices.DeleteFunc(f.comparisons, func(g comparison) bool {
			if g.to == to && !slices.Contains(ns, g.n) {
				ns = append(ns, g.n)
			}
			return g.to == to
		})
		f.probes.send(to, ns)
	}
	f.outbox.endPacket() // what follows is bounded by itself, not by who made it necessary
	if len(f.askQueue) == 0 {
		return
	}
	f.askQueue = slices.DeleteFunc(f.askQueue, func(n *network) bool {
		done := n.table.View().Synced() || f.nets.byName[n.name] != n
		n.askQueued = n.askQueued && !done
		return done
	})
	k := min(len(f.askQueue), f.free())
	if k <= 0 {
		return
	}
	todo := slices.Clone(f.askQueue[:k])
	f.askQueue = slices.Delete(f.askQueue, 0, k)
	for _, n := range todo {
		n.askQueued = false
		if f.now-n.askSince > askWindow || n.askSince == 0 {
			n.askSince, n.askedCount = max(f.now, 1), 0
		}
	}
	for range peersPerAsk {
		f.askRound(todo)
	}
}

// askRound asks one participant for each network.
func (f *fetch) askRound(todo []*network) {
	todo = slices.DeleteFunc(slices.Clone(todo), func(n *network) bool { return !f.mayAskAnother(n) })
	for len(todo) > 0 {
		to, ok := f.choose(todo[0])
		if !ok {
			todo = todo[1:]
			continue
		}
		var ns []*network
		ns, todo = f.probes.shared(to, todo, min(tablesPerAsk, f.probes.perDatagram()))
		for _, n := range ns {
			n.askedCount++
			n.appeared = slices.DeleteFunc(n.appeared, func(id state.NodeID) bool { return id == to })
		}
		f.probes.send(to, ns)
	}
}

// choose returns the participant to ask for a network: one that has just
// appeared, for where all start at once nobody else may know what it knows, or
// a random one. Where there are more than can be asked, those who showed that
// they are there come first: names that somebody made up take none of the few
// questions then.
func (f *fetch) choose(n *network) (state.NodeID, bool) {
	from := f.roster.living(n.name)
	proven := f.roster.provenOf(from)
	few := len(proven) == 0 || len(from) <= smallTable
	for len(n.appeared) > 0 {
		id := n.appeared[0]
		n.appeared = n.appeared[1:]
		if m := f.roster.members[id]; m != nil && m.reachable() && (few || m.proven) {
			return id, true
		}
	}
	if !few {
		from = proven
	}
	to := f.roster.pick(from, 1)
	if len(to) == 0 {
		return "", false
	}
	return to[0], true
}

// provenOf returns those of some nodes that showed that they are there.
func (r *roster) provenOf(ids []state.NodeID) []state.NodeID {
	var out []state.NodeID
	for _, id := range ids {
		if m := r.members[id]; m != nil && m.proven {
			out = append(out, id)
		}
	}
	return out
}

// countLiving returns how many participants of a network are thought to live. In one
// step it is counted once: a join hears of its members one by one, and each of
// them changes it.
func (r *roster) countLiving(n *network) int {
	if n.livingCount == 0 || n.livingCountAt != r.now {
		n.livingCount, n.livingCountAt = len(r.living(n.name)), r.now
	}
	return n.livingCount
}

// mayAskAnother reports whether one more peer may be asked for a network within
// askWindow: a few of many, and everybody where they are so few that the heads of
// their streams, not whole tables, are what comes back. Where many are known,
// whether they live is not looked at: a join hears of them one by one.
func (f *fetch) mayAskAnother(n *network) bool {
	if n.askedCount >= peersPerAsk && !f.roster.smallNetwork(n) {
		return false
	}
	return n.askedCount < len(f.roster.living(n.name))
}

// fetching reports whether a peer is sending the whole of a large table that
// is not yet synced: nobody else is asked for it meanwhile.
func (n *network) fetching(now time.Duration) bool {
	return now < n.fetchUntil && !n.table.View().Synced()
}

// fetchPatience is how long a peer that sends a table may fall silent before
// another is asked.
const fetchPatience = 500 * time.Millisecond

// maxFetches bounds how many networks are fetched at a time: more would only
// wait for each other, and for longer than fetchPatience.
const maxFetches = 8

// free is how many more networks may be asked for.
func (f *fetch) free() int {
	slots := maxFetches
	for _, n := range f.nets.byName {
		if (f.now < n.fetchUntil || f.now < n.answerDue) && !n.table.View().Synced() {
			slots--
		}
	}
	return slots
}

// moreComes notes that a peer has sent a part of a table and will send more: it is
// not asked again whether that was all.
func (f *fetch) moreComes(n *network, from state.NodeID) {
	n.moreComing = true
	f.comparisons = slices.DeleteFunc(f.comparisons, func(g comparison) bool { return g.n == n && g.to == from })
}

// partArrived notes that a part of a table came, and asks its sender whether that
// was all.
func (f *fetch) partArrived(n *network, from state.NodeID) {
	if n.fetching(f.now) {
		n.fetchUntil, n.moreComing = f.now+fetchPatience, false
		if len(f.comparisons) < maxComparisons {
			f.comparisons = append(f.comparisons, comparison{from, n})
		}
	}
}
