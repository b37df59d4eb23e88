package gossip

import (
	"slices"
	"time"

	"meshd/state"
)

// repairRound compares table hashes with random participants (G4). Every round
// starts with another network and goes on until all were compared, or
// roundPackets were sent: the next round starts where this one ended, so that
// every network is compared equally often, however many there are.
func (c *Core) repairRound() {
	every := c.cfg.RepairIdle
	if c.now < c.busyUntil {
		every = c.cfg.RepairBusy
	}
	c.repairAt = c.now + c.jitter(every)
	var todo []*network
	slots := c.freeFetches()
	for i := range c.order {
		n := c.networks[c.order[(c.firstCompared+i)%len(c.order)]]
		switch {
		case n.table.View().Synced():
		case n.fetching(c.now) || slots <= 0:
			continue
		default:
			slots--
		}
		todo = append(todo, n)
	}
	for sent := 0; len(todo) > 0 && sent < roundPackets; {
		to := c.partner(todo[0])
		if len(to) == 0 {
			if c.alone() || todo[0].name != "" && c.store.Global().View().Synced() { // nobody else takes part
				todo[0].table.SetSynced()
			}
			todo = todo[1:]
			continue
		}
		var ns []*network
		ns, todo = c.takeShared(to[0], todo, c.probesPerDatagram())
		c.sendProbe(to[0], ns)
		sent++
	}
	c.firstCompared = (c.firstCompared + 1) % len(c.order)
	if len(todo) > 0 {
		c.firstCompared, _ = slices.BinarySearch(c.order, todo[0].name)
	}
}

// partner returns a random participant of a network to be compared with, none or
// one. Every other time it is one that showed that it is there, if any did: what
// somebody made up may be listed by the thousand.
func (c *Core) partner(n *network) []state.NodeID {
	from := c.living(n.name)
	if c.preferProven = !c.preferProven; c.preferProven && len(from) > smallTable {
		if proven := c.provenOf(from); len(proven) > 0 {
			from = proven
		}
	}
	return c.pick(from, 1)
}

// roundPackets bounds what one round of repair sends.
const roundPackets = 4

// takeShared returns the first of some networks, and up to room in all of those
// that a peer takes part in as well; and the rest.
func (c *Core) takeShared(to state.NodeID, from []*network, room int) (ns, rest []*network) {
	for i, n := range from {
		if len(ns) < room && (i == 0 || c.cfg.Peers != nil || c.takesPart(to, n.name)) {
			ns = append(ns, n)
		} else {
			rest = append(rest, n)
		}
	}
	return ns, rest
}

// probesPerDatagram is of how many networks a datagram holds the hashes.
func (c *Core) probesPerDatagram() int {
	return max(1, min(maxProbed, (c.cfg.Datagram-len(c.newPacket().b)-8)/probedSize))
}

// sendProbe sends a peer the hashes of networks, in as few datagrams as they fit.
func (c *Core) sendProbe(to state.NodeID, ns []*network) {
	m := c.members[to]
	lost := m != nil && m.listed && (c.deaf() || c.undelivered(m))
	if lost {
		m.streamUntil = c.now + streamsOnlyFor
	}
	for part := range slices.Chunk(ns, c.probesPerDatagram()) {
		// What the peer asked of us is not asked of it in turn: two nodes would hold
		// each other to streams for ever.
		f := probeFrame{stream: lost, ack: c.usesStream(to)}
		for _, n := range part {
			n.probedAt = c.now
			if !n.table.View().Synced() {
				n.answerDue = c.now + fetchPatience
			}
			t := tableHash{n.hash, n.table.Hash()}
			if n.name == "" {
				f.tables = slices.Insert(f.tables, 0, t) // it takes less there
			} else {
				f.tables = append(f.tables, t)
			}
			f.ack = f.ack || !n.table.View().Synced()
		}
		e := c.newPacket()
		e.probe(frameProbe, f)
		c.Stats.Probes++
		c.send(to, e)
	}
}

// Compared returns how long ago the hash of a network's table was last sent to
// a peer; the time since the node's start if it never was.
func (c *Core) Compared(name string) time.Duration {
	n := c.networks[name]
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
func (c *Core) compareWith(n *network, peer state.NodeID) {
	switch {
	case peer == c.cfg.Self || c.cfg.Peers != nil:
	case !n.table.View().Synced():
		if c.smallNetwork(n) && !n.fetching(c.now) && len(c.comparisons) < maxComparisons {
			c.comparisons = append(c.comparisons, comparison{peer, n})
			break
		}
		if len(n.appeared) < smallTable {
			n.appeared = append(n.appeared, peer)
		}
		c.askForTable(n)
	case len(c.comparisons) < maxComparisons:
		if k := c.countLiving(n); k <= peersPerAsk || c.drawFor(peer)*float64(k) < peersPerAsk {
			c.comparisons = append(c.comparisons, comparison{peer, n})
		}
	}
}

// smallNetwork reports whether few take part in a network, whether they live or not.
func (c *Core) smallNetwork(n *network) bool {
	known := len(c.members)
	if n.name != "" {
		known = len(c.store.Participants(n.name))
	}
	return known <= smallTable
}

// drawFor returns a random number from 0 to 1, in one step the same for a peer:
// whoever greets it for one network does so for all.
func (c *Core) drawFor(peer state.NodeID) float64 {
	if c.drawn == nil || c.drawn.peer != peer {
		c.drawn = &draw{peer, c.rng.Float64()}
	}
	return c.drawn.value
}

type draw struct {
	peer  state.NodeID
	value float64
}

// askForTable asks some participants for a network's table at the end of the step.
func (c *Core) askForTable(n *network) {
	if !n.askQueued && !n.table.View().Synced() && !n.fetching(c.now) && c.cfg.Peers == nil {
		n.askQueued = true
		c.askQueue = append(c.askQueue, n)
	}
}

// sendComparisons sends the greetings of this step.
func (c *Core) sendComparisons() {
	c.drawn = nil
	for len(c.comparisons) > 0 {
		to := c.comparisons[0].to
		var ns []*network
		c.comparisons = slices.DeleteFunc(c.comparisons, func(g comparison) bool {
			if g.to == to && !slices.Contains(ns, g.n) {
				ns = append(ns, g.n)
			}
			return g.to == to
		})
		c.sendProbe(to, ns)
	}
	c.endPacket() // what follows is bounded by itself, not by who made it necessary
	if len(c.askQueue) == 0 {
		return
	}
	c.askQueue = slices.DeleteFunc(c.askQueue, func(n *network) bool {
		done := n.table.View().Synced() || c.networks[n.name] != n
		n.askQueued = n.askQueued && !done
		return done
	})
	k := min(len(c.askQueue), c.freeFetches())
	if k <= 0 {
		return
	}
	todo := slices.Clone(c.askQueue[:k])
	c.askQueue = slices.Delete(c.askQueue, 0, k)
	for _, n := range todo {
		n.askQueued = false
		if c.now-n.askSince > askWindow || n.askSince == 0 {
			n.askSince, n.askedCount = max(c.now, 1), 0
		}
	}
	for range peersPerAsk {
		c.askParticipants(todo)
	}
}

// askParticipants asks one participant for each network.
func (c *Core) askParticipants(todo []*network) {
	todo = slices.DeleteFunc(slices.Clone(todo), func(n *network) bool { return !c.mayAskAnother(n) })
	for len(todo) > 0 {
		to, ok := c.chooseParticipant(todo[0])
		if !ok {
			todo = todo[1:]
			continue
		}
		var ns []*network
		ns, todo = c.takeShared(to, todo, min(tablesPerAsk, c.probesPerDatagram()))
		for _, n := range ns {
			n.askedCount++
			n.appeared = slices.DeleteFunc(n.appeared, func(id state.NodeID) bool { return id == to })
		}
		c.sendProbe(to, ns)
	}
}

// chooseParticipant returns the participant to ask for a network: one that has just
// appeared, for where all start at once nobody else may know what it knows, or
// a random one. Where there are more than can be asked, those who showed that
// they are there come first: names that somebody made up take none of the few
// questions then.
func (c *Core) chooseParticipant(n *network) (state.NodeID, bool) {
	from := c.living(n.name)
	proven := c.provenOf(from)
	few := len(proven) == 0 || len(from) <= smallTable
	for len(n.appeared) > 0 {
		id := n.appeared[0]
		n.appeared = n.appeared[1:]
		if m := c.members[id]; m != nil && m.reachable() && (few || m.proven) {
			return id, true
		}
	}
	if !few {
		from = proven
	}
	to := c.pick(from, 1)
	if len(to) == 0 {
		return "", false
	}
	return to[0], true
}

// provenOf returns those of some nodes that showed that they are there.
func (c *Core) provenOf(ids []state.NodeID) []state.NodeID {
	var out []state.NodeID
	for _, id := range ids {
		if m := c.members[id]; m != nil && m.proven {
			out = append(out, id)
		}
	}
	return out
}

// countLiving returns how many participants of a network are thought to live. In one
// step it is counted once: a join hears of its members one by one, and each of
// them changes it.
func (c *Core) countLiving(n *network) int {
	if n.livingCount == 0 || n.livingCountAt != c.now {
		n.livingCount, n.livingCountAt = len(c.living(n.name)), c.now
	}
	return n.livingCount
}

// mayAskAnother reports whether one more peer may be asked for a network within
// askWindow: a few of many, and everybody where they are so few that the heads of
// their streams, not whole tables, are what comes back. Where many are known,
// whether they live is not looked at: a join hears of them one by one.
func (c *Core) mayAskAnother(n *network) bool {
	if n.askedCount >= peersPerAsk && !c.smallNetwork(n) {
		return false
	}
	return n.askedCount < len(c.living(n.name))
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

// freeFetches is how many more networks may be asked for.
func (c *Core) freeFetches() int {
	slots := maxFetches
	for _, n := range c.networks {
		if (c.now < n.fetchUntil || c.now < n.answerDue) && !n.table.View().Synced() {
			slots--
		}
	}
	return slots
}

// tablePartArrived notes that a part of a table came, and asks its sender whether that
// was all.
func (c *Core) tablePartArrived(n *network, from state.NodeID) {
	if n.fetching(c.now) {
		n.fetchUntil, n.moreComing = c.now+fetchPatience, false
		if len(c.comparisons) < maxComparisons {
			c.comparisons = append(c.comparisons, comparison{from, n})
		}
	}
}
