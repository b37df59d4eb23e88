package gossip

import (
	"math/bits"
	"slices"
	"time"

	"meshd/state"
)

// smallTable is up to how many owners a digest lists all heads at once; above,
// bucket hashes go first (G4).
const smallTable = 32

// Where datagrams are lost and streams are not, as behind a firewall that
// forgot one of the two, the membership takes everybody for alive, since it
// falls back to streams. So does repair: a node that has heard no datagram from
// anybody for silentFor, or whose probes a peer does not answer, compares over
// streams, and its peers answer so.
const (
	deafAfter      = 5 * time.Second
	streamsOnlyFor = 10 * time.Second
)

func (r *roster) deaf() bool { return r.now-r.lastHeard > deafAfter }

// pingWhenDeaf pings some of those who showed that they are there, by datagrams,
// before a node takes itself for deaf. The membership's own probes do so in a small
// mesh; where hundreds of names are listed that somebody made up, they seldom go to
// a host.
func (p *pings) pingWhenDeaf() {
	if p.cfg.Probing == 0 || p.now-p.roster.lastHeard < deafAfter/2 {
		return
	}
	for _, id := range p.roster.pick(p.roster.provenOf(p.roster.living("")), deafPings) {
		m := p.roster.members[id]
		e := p.newPacket()
		e.ping(framePing, pingFrame{nonce: m.nonce, target: id})
		p.outbox.sendTo(id, m.addr, e)
	}
}

const deafPings = 3 // in a second

func (r *roster) usesStream(peer state.NodeID) bool {
	m := r.members[peer]
	return m != nil && r.now < m.streamUntil
}

func (r *roster) takesPart(peer state.NodeID, name string) bool {
	if name == "" {
		return true
	}
	_, ok := slices.BinarySearch(r.store.Participants(name), peer)
	return ok
}

// onProbe answers a peer's hashes where ours differ.
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

// Divergence returns how long ago a table last compared equal with a peer's,
// if the latest comparison found a difference; else 0.
func (c *Core) Divergence(name string) time.Duration {
	n := c.nets.byName[name]
	if n == nil || n.differedAt <= n.equalAt {
		return 0
	}
	return c.now - n.equalAt
}

// sendSummary answers with what a peer needs to find the streams that differ:
// all heads of a small table, else bucket hashes and the recent news.
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

// onSummary answers bucket hashes with the heads of the buckets that differ.
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
	differ := map[int]bool{}
	var list []int
	for i, h := range n.table.Buckets(size) {
		if h != f.hashes[i] {
			differ[i] = true
			list = append(list, i)
		}
	}
	if len(list) == 0 {
		n.markCompared()
		return nil
	}
	if n.answerDue = 0; 2*len(list) > size { // else what is ours alone, perhaps
		n.fetchPeer, n.fetchUntil, n.moreComing = from, r.now+fetchPatience, true
	} else {
		n.fetchUntil = 0
	}
	list, hs := someBuckets(list, size, n.table.Heads(func(o state.NodeID) bool { return differ[state.Bucket(o, size)] }),
		r.cfg.Chunk/2)
	e := r.newPacket()
	e.heads(frameHeads, n.name, size, list, true, hs)
	r.outbox.send(from, e)
	return nil
}

// someBuckets returns as many of the buckets in list as fit a number of bytes,
// and their heads: the next comparison finds the others.
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

// onHeads compares a peer's heads with ours, sends what it lacks and asks for
// what we lack.
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
		in := map[int]bool{}
		for _, b := range f.buckets {
			in[b] = true
		}
		ours = n.table.Heads(func(o state.NodeID) bool { return in[state.Bucket(o, f.n)] })
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

// compareHeads matches a peer's heads with ours. ours is nil if the peer's list is
// partial: then what it does not mention means nothing. It reports whether we
// lack something, and whether the peer does.
func (r *repair) compareHeads(from state.NodeID, n *network, theirs, ours []state.OwnerHead) (lacks, lacking bool) {
	var wants []lack
	var offers []state.Want
	known := make(map[state.NodeID]state.OwnerHead, len(theirs))
	for _, h := range theirs {
		known[h.Owner] = h
		if h.Owner == r.cfg.Self && !r.yielded {
			r.own.defend(n, h.Head, h.Buried)
			continue
		}
		if h.Buried {
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
		case o.Buried, o.Kept, ok && (h.Buried || h.Kept || o.Head.Compare(h.Head) <= 0), r.news.isFresh(n, o.Owner):
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

// isFresh reports whether a stream's news is so young that its push is still under way.
func (p *push) isFresh(n *network, o state.NodeID) bool {
	for i := len(n.hot) - 1; i >= 0 && p.now-n.hot[i].at < p.cfg.HotAfter/2; i-- {
		if n.hot[i].owner == o {
			return true
		}
	}
	return false
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
// streams that did not fit, it says what we have, so that the peer asks again.
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

// pace is when repair compares.
type pace struct {
	*env

	roundAt   time.Duration // when the next round of repair is due
	busyUntil time.Duration // until then news makes the rounds short
}

// newsCame makes rounds short for a while.
func (p *pace) newsCame() {
	p.busyUntil = p.now + p.cfg.BusyFor
	if p.roundAt > p.now+p.cfg.RepairBusy {
		p.roundAt = p.now + p.jitter(p.cfg.RepairBusy)
	}
}

// nextRound sets when the round after this one is due.
func (p *pace) nextRound() {
	every := p.cfg.RepairIdle
	if p.now < p.busyUntil {
		every = p.cfg.RepairBusy
	}
	p.roundAt = p.now + p.jitter(every)
}

// deliveryObserver reports to which members datagrams do not seem to arrive.
type deliveryObserver interface {
	undelivered(m *member) bool
}

// probes sends hashes.
type probes struct {
	*env
	roster   *roster
	outbox   *outbox
	liveness deliveryObserver
}

// fetch asks for whole tables.
type fetch struct {
	*env
	roster *roster
	outbox *outbox
	nets   *nets
	probes *probes

	comparisons []comparison
	askQueue    []*network
	drawn       *draw
}

// What repair needs of its neighbours: which streams have changed lately, how to ask
// for what is missing, and who answers for this node's own stream.
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

// repair compares tables.
type repair struct {
	*env
	roster *roster
	outbox *outbox
	nets   *nets
	pace   *pace
	probes *probes
	fetch  *fetch
	reaper *reaper
	news   newsLog
	pull   requester
	own    ownDefender

	firstCompared int
	preferProven  bool
}
