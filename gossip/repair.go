package gossip

import (
	"math/bits"
	"slices"
	"time"

	"meshd/state"
)

// This file owns the comparison of tables with random peers (G4): hashes of
// tables, then of buckets, then heads of streams. What is missing here is asked
// for by pull, what is missing there is sent.

// repair compares tables and answers those who compare.
type repair struct {
	// What it stands on.

	*env
	roster *roster // whom to compare with
	outbox *outbox // where answers go
	nets   *nets   // what to compare
	pace   *pace   // when
	probes *probes // how hashes are sent
	fetch  *fetch  // which tables are on their way
	reaper *reaper // whose leftovers still wait

	// What it needs of its neighbours.

	news newsLog     // which streams have changed just now
	pull requester   // asks for what is missing here
	own  ownDefender // answers for this node's own stream

	// Its own state.

	firstCompared int  // which of nets.order the next round begins with
	preferProven  bool // the last partner was to be proven; flips with each one, see partner
}

// What repair needs of its neighbours: which streams have changed just now, how
// to ask for what is missing, and who answers for this node's own stream.
type (
	newsLog interface {
		isFresh(n *network, owner state.NodeID) bool
		hotHeads(n *network, since time.Duration, budget int) []state.OwnerHead
	}
	requester interface {
		request(from state.NodeID, n *network, ws []lack)
		dropAt(key streamKey, peer state.NodeID)
	}
	ownDefender interface {
		defend(n *network, h state.Head, retired bool)
	}
)

// roundPackets bounds what one round of repair sends.
const roundPackets = 4

// smallTable is up to how many owners a digest lists all heads at once. Above it,
// hashes of buckets go first (G4).
const smallTable = 32

// round compares table hashes with random participants (G4). It begins with
// another network each time and goes on until all were compared, or roundPackets
// were sent; the next round begins where this one ended. So every network is
// compared equally often, however many there are.
func (r *repair) round() {
	r.pace.nextRound()
	todo, looked := r.dueNetworks()
	for sent := 0; len(todo) > 0 && sent < roundPackets; {
		to := r.partner(todo[0])
		if len(to) == 0 {
			if r.roster.alone() || todo[0].name != "" && r.store.Global().View().Synced() { // no other node takes part
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
	if looked == len(r.nets.order) {
		looked = 1 // all of them: the next round begins with another one
	}
	r.firstCompared = (r.firstCompared + looked) % len(r.nets.order)
	if len(todo) > 0 {
		r.firstCompared, _ = slices.BinarySearch(r.nets.order, todo[0].name)
	}
}

// dueNetworks returns as many of the networks as one round can compare, from
// firstCompared on, and how many of them it looked at.
func (r *repair) dueNetworks() (todo []*network, looked int) {
	slots, room := r.fetch.free(), roundPackets*r.probes.perDatagram()
	for i := range r.nets.order {
		if len(todo) >= room {
			return todo, i
		}
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
	return todo, len(r.nets.order)
}

// partner returns a random participant to compare a network with, or none. Every
// other time it is one that has shown that it exists, if there is one: invented
// names may be listed by the thousand.
func (r *repair) partner(n *network) []state.NodeID {
	from := r.roster.living(n.name)
	if r.preferProven = !r.preferProven; r.preferProven && from.Len() > smallTable {
		if proven := r.roster.livingProven(n.name); proven.Len() > 0 {
			from = proven
		}
	}
	return r.roster.pick(from, 1)
}

// onProbe answers a peer's hashes where this node's differ.
func (r *repair) onProbe(from state.NodeID, typ byte, p []byte) error {
	f, err := decodeProbe(typ, p)
	if err != nil {
		return err
	}
	if m := r.roster.members[from]; m != nil && f.stream {
		m.streamUntil = max(m.streamUntil, r.now+streamsOnlyFor)
	}
	equal := probeFrame{}
	for _, t := range f.tables {
		n := r.nets.byProbeHash(typ, t.network)
		if n == nil {
			continue
		}
		if n.agreesWith(t.hash) {
			n.markCompared()
			n.equalAt = r.now
			equal.tables = append(equal.tables, t)
			continue
		}
		n.differedAt = r.now
		if (typ == frameProbe || typ == frameProbe32) && !n.fetching(r.now) &&
			(n.table.View().Synced() || r.now < n.answerDue || r.fetch.free() > 0) {
			r.Stats.Mismatches++
			r.sendSummary(from, n)
		}
	}
	answer := map[byte]byte{frameProbe: frameEqual, frameProbe32: frameEqual32}[typ]
	if f.ack && answer != 0 && len(equal.tables) > 0 {
		e := r.newPacket()
		e.probe(answer, equal)
		r.outbox.send(from, e)
	}
	return nil
}

// sendSummary sends a peer what it needs to find the streams that differ: all
// heads of a small table, else the hashes of its buckets and the recent news.
func (r *repair) sendSummary(to state.NodeID, n *network) {
	e := r.newPacket()
	owners := n.table.Streams()
	if owners <= smallTable {
		e.heads(frameHeads, n.name, 1, []int{0}, true, n.table.Heads(func(state.NodeID) bool { return true }))
	} else {
		size := 1 << min(bits.Len(uint(owners))/2+1, 8)
		e.summary(summaryFrame{
			network: n.name, hashes: n.table.Buckets(size),
			hot: r.news.hotHeads(n, r.now-time.Second, r.cfg.Datagram-128-8*size),
		})
	}
	r.outbox.send(to, e)
}

// onSummary answers the hashes of buckets with the heads of those that differ.
func (r *repair) onSummary(from state.NodeID, p []byte) error {
	f, err := decodeSummary(p)
	if err != nil {
		return err
	}
	n := r.nets.byName[f.network]
	if n == nil {
		return nil
	}
	if n.fetching(r.now) && (from != n.fetchPeer || n.moreComing) {
		return nil // the table is on its way
	}
	r.compareHeads(from, n, f.hot, nil)
	size := len(f.hashes)
	var list []int
	for i, h := range n.table.Buckets(size) {
		if h != f.hashes[i] {
			list = append(list, i)
		}
	}
	if len(list) == 0 {
		n.markCompared()
		return nil
	}
	if n.answerDue = 0; 2*len(list) > size { // else it may be what only this node has
		n.fetchPeer, n.fetchUntil, n.moreComing = from, r.now+fetchPatience, true
	} else {
		n.fetchUntil = 0
	}
	list, hs := someBuckets(list, size, n.table.HeadsIn(size, list), r.cfg.Chunk/2)
	e := r.newPacket()
	e.heads(frameHeads, n.name, size, list, true, hs)
	r.outbox.send(from, e)
	return nil
}

// someBuckets returns as many of the buckets in list as fit into room bytes, and
// their heads. The next comparison finds the others.
func someBuckets(list []int, size int, heads []state.OwnerHead, room int) ([]int, []state.OwnerHead) {
	cost := make(map[int]int, len(list))
	for _, h := range heads {
		cost[state.Bucket(h.Owner, size)] += len(h.Owner) + 32
	}
	var some []int
	in := map[int]bool{}
	for _, b := range list {
		if room -= cost[b]; room < 0 && len(some) > 0 {
			break
		}
		some = append(some, b)
		in[b] = true
	}
	if len(some) == len(list) {
		return list, heads
	}
	return some, slices.DeleteFunc(heads, func(h state.OwnerHead) bool { return !in[state.Bucket(h.Owner, size)] })
}

// onHeads compares a peer's heads with this node's, sends what the peer lacks and
// asks for what is missing here.
func (r *repair) onHeads(from state.NodeID, typ byte, p []byte) error {
	f, err := decodeHeads(typ, p)
	if err != nil {
		return err
	}
	n := r.nets.byName[f.network]
	if n == nil {
		return nil
	}
	var ours []state.OwnerHead
	if typ == frameHeads {
		ours = n.table.HeadsIn(f.n, f.buckets)
	}
	lacks, offers := r.compareHeads(from, n, f.heads, ours)
	if typ == frameHeads && !lacks {
		n.markCompared()
		if !offers {
			r.rememberAgreement(from, n, f, ours)
		}
	}
	return nil
}

// onMore handles the heads of streams that a peer was asked for and that did not
// fit its answer: they are asked for again.
func (r *repair) onMore(from state.NodeID, p []byte) error {
	f, err := decodeHeads(frameMore, p)
	if err != nil {
		return err
	}
	n := r.nets.byName[f.network]
	if n == nil {
		return nil
	}
	r.fetch.moreComes(n, from)
	for _, h := range f.heads {
		r.pull.dropAt(streamKey{n.name, h.Owner}, from)
	}
	r.compareHeads(from, n, f.heads, nil)
	return nil
}

// onWants answers with deltas.
func (r *repair) onWants(from state.NodeID, p []byte) error {
	network, ws, err := decodeWants(p)
	if err != nil {
		return err
	}
	if n := r.nets.byName[network]; n != nil {
		r.serve(from, n, ws)
	}
	return nil
}

// serve sends deltas for wants, in one packet of at most Chunk bytes. For the
// streams that do not fit it sends the heads, so that the peer asks again.
func (r *repair) serve(to state.NodeID, n *network, ws []state.Want) {
	e := r.newPacket()
	budget := r.outbox.deltaBudget()
	opened := false
	var rest []state.OwnerHead
	for _, w := range ws {
		if budget <= 0 {
			if h, ok := n.table.Head(w.Owner); ok && len(rest) < 256 {
				rest = append(rest, state.OwnerHead{Owner: w.Owner, Head: h})
			}
			continue
		}
		d := n.table.Delta(w, budget)
		if d == nil {
			continue
		}
		if !opened {
			e.open(frameDelta)
			opened = true
		}
		before := len(e.b)
		e.delta(d)
		r.Stats.DeltasOut++
		budget -= len(e.b) - before
	}
	if !opened {
		return
	}
	e.close()
	r.outbox.deltasSent(budget)
	if len(rest) > 0 {
		e.heads(frameMore, n.name, 0, nil, false, rest)
	}
	r.outbox.send(to, e)
}
