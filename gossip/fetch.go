package gossip

import (
	"slices"
	"time"

	"meshd/state"
)

// This file owns how a node comes to a table that it does not have yet, after its
// start or after it joined a network: whom it asks, how many at a time, and for
// how long it waits for each.

// fetch asks for whole tables, and compares with members that appear.
type fetch struct {
	*env
	roster *roster
	outbox *outbox
	nets   *nets
	probes *probes

	comparisons []comparison // that wait for the end of the step, at most maxComparisons
	askQueue    []*network   // networks to be asked for at the end of the step
	drawn       *draw        // the last random number of this step; nil: none
}

// comparison is a network to be compared with one peer.
type comparison struct {
	to state.NodeID
	n  *network
}

// draw is a random number that is drawn once per step and peer.
type draw struct {
	peer  state.NodeID
	value float64 // from 0 to 1
}

// The bounds of what a node asks when members or networks appear. Whole tables
// come back, so a network that is not yet synced goes to few peers at once, and
// few networks to one peer.
const (
	maxComparisons = 1024
	peersPerAsk    = 3
	askWindow      = 2 * time.Second
	tablesPerAsk   = 16
)

// fetchPatience is how long a peer that sends a table may fall silent before
// another is asked.
const fetchPatience = 500 * time.Millisecond

// maxFetches bounds how many networks are fetched at a time: more would only wait
// for each other, and for longer than fetchPatience.
const maxFetches = 8

// compareWithMember compares all networks with a member that appeared.
func (f *fetch) compareWithMember(id state.NodeID) {
	for _, n := range f.sharedWith(id) {
		f.compareWith(n, id)
	}
}

// sharedWith returns the networks in which a member takes part as well, sorted: those
// that it names, if this node takes part in many.
func (f *fetch) sharedWith(id state.NodeID) (ns []*network) {
	if len(f.nets.order) <= fewNetworks {
		for _, name := range f.nets.order {
			if f.roster.takesPart(id, name) {
				ns = append(ns, f.nets.byName[name])
			}
		}
		return ns
	}
	ns = append(ns, f.nets.byName[""])
	for _, e := range f.store.Global().OwnerEntries(id, state.KindMember) {
		if n := f.nets.byName[e.Key()]; n != nil {
			ns = append(ns, n)
		}
	}
	return ns
}

// fewNetworks is in how many networks it costs nothing to look whether a member takes
// part.
const fewNetworks = 16

// compareWith compares a network with a participant that appeared, if this node
// is one of the few that should: otherwise every node would answer a join. A
// network that is not yet synced asks for its table instead: of every member that
// appears where few take part, else of a few. All of that is sent at the end of
// the step, in as few packets as it takes.
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

// drawFor returns a random number from 0 to 1, the same for one peer during a
// step: a node that compares one network with it compares all.
func (f *fetch) drawFor(peer state.NodeID) float64 {
	if f.drawn == nil || f.drawn.peer != peer {
		f.drawn = &draw{peer, f.rng.Float64()}
	}
	return f.drawn.value
}

// request asks some participants for a network's table at the end of the step.
func (f *fetch) request(n *network) {
	if !n.askQueued && !n.table.View().Synced() && !n.fetching(f.now) && f.cfg.Peers == nil {
		n.askQueued = true
		f.askQueue = append(f.askQueue, n)
	}
}

// memberProven asks a member for the tables that are not yet synced, now that it
// has shown that it exists: the members that were listed before may all be made
// up.
func (f *fetch) memberProven(id state.NodeID) {
	for _, n := range slices.Clone(f.nets.unsynced()) {
		if f.roster.takesPart(id, n.name) {
			if !n.provenAppeared {
				n.provenAppeared, n.askedCount = true, 0
			}
			f.request(n)
		}
	}
}

// flush sends the comparisons and the questions of this step.
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
	f.outbox.endPacket() // what follows has its own bounds
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
// appeared, since where all start at once no other may know what it knows, or a
// random one. Where there are more than can be asked, proven members come first,
// so that invented names take none of the few questions.
func (f *fetch) choose(n *network) (state.NodeID, bool) {
	from := f.roster.living(n.name)
	proven := f.roster.livingProven(n.name)
	few := proven.Len() == 0 || from.Len() <= smallTable
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

// mayAskAnother reports whether one more peer may be asked for a network within
// askWindow: a few of many, and every one where they are so few that heads of
// streams come back, not whole tables. For the latter it does not matter who
// lives: a join brings its members one by one.
func (f *fetch) mayAskAnother(n *network) bool {
	if n.askedCount >= peersPerAsk && !f.roster.smallNetwork(n) {
		return false
	}
	return n.askedCount < f.roster.living(n.name).Len()
}

// free is how many more networks may be asked for.
func (f *fetch) free() int {
	slots := maxFetches
	for _, n := range f.nets.unsynced() {
		if f.now < n.fetchUntil || f.now < n.answerDue {
			slots--
		}
	}
	return slots
}

// moreComes records that a peer sent a part of a table and will send more: it is
// not asked again whether that was all.
func (f *fetch) moreComes(n *network, from state.NodeID) {
	n.moreComing = true
	f.comparisons = slices.DeleteFunc(f.comparisons, func(g comparison) bool { return g.n == n && g.to == from })
}

// partArrived records that a part of a table came, and asks its sender whether
// that was all.
func (f *fetch) partArrived(n *network, from state.NodeID) {
	if n.fetching(f.now) {
		n.fetchUntil, n.moreComing = f.now+fetchPatience, false
		if len(f.comparisons) < maxComparisons {
			f.comparisons = append(f.comparisons, comparison{from, n})
		}
	}
}
