package gossip

import (
	"maps"
	"math/bits"
	"slices"
	"time"

	"meshd/state"
)

// pushQueue holds deltas that wait to be pushed (G3).
type pushQueue struct {
	items  []pushItem
	at     time.Duration // when to flush; 0: nothing waits
	last   time.Duration // of the last flush
	tokens float64       // bytes that may be pushed now (G7)
	filled time.Duration
}

type pushItem struct {
	delta *state.Delta
	from  state.NodeID // who brought it; empty: we wrote it
	hops  int
}

// maxQueued bounds what others brought in the queue: what is over it is left to
// repair (G7). What this node wrote itself always finds room.
const maxQueued = 4096

// pushOwn pushes what this node wrote to its own stream of n since the last time.
func (p *push) pushOwn(n *network) {
	h, _ := n.table.Head(p.cfg.Self)
	if h.Version == n.pushed {
		return
	}
	w := state.Want{Owner: p.cfg.Self, Inc: h.Inc, From: n.pushed, After: n.pushed}
	if n.pushed == 0 {
		w.Inc = 0 // the first thing we say is a snapshot
	}
	n.pushed = h.Version
	d := n.table.Delta(w, p.cfg.Datagram)
	p.noteNews(n, p.cfg.Self)
	if d == nil || d.Upto != d.To || deltaSize(d) > p.cfg.Datagram-64 || p.yielded {
		p.advertise(n, p.cfg.Self, "")
		return
	}
	p.enqueue(pushItem{delta: d})
}

// hint is a stream that is to be announced, and who told of it.
type hint struct {
	owner, from state.NodeID
}

// advertise tells k random participants that we have a stream's newest version,
// where the data itself is too large to push: they pull it. What one packet
// brought is announced together, when it is handled: see announce.
func (p *push) advertise(n *network, owner, from state.NodeID) {
	p.hints[n.name] = append(p.hints[n.name], hint{owner, from})
	if !p.outbox.handlesPacket() {
		p.announce()
	}
}

// announce sends the hints, as few packets as they fit.
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

func (p *push) announceNetwork(n *network, hints []hint) {
	not := []state.NodeID{hints[0].from} // of one packet, all have the same
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

// sendHints tells one peer of streams, its own left out.
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

// deltaSize estimates the encoded size of a delta from above.
func deltaSize(d *state.Delta) int {
	n := 64 + len(d.Network) + len(d.Owner)
	for i := range d.Records {
		r := &d.Records[i]
		n += 12 + len(r.Key) + len(r.Group) + len(r.Body)
	}
	return n
}

func (p *push) enqueue(it pushItem) {
	if len(p.queue.items) >= maxQueued && it.from != "" {
		p.Stats.PushDropped++
		return
	}
	p.queue.items = append(p.queue.items, it)
	if p.queue.at == 0 {
		p.queue.at = max(p.now, p.queue.last+p.cfg.Coalesce)
	}
}

// flush pushes what waits, if it is due: at once when the node is calm.
func (p *push) flush() {
	q := &p.queue
	if q.at == 0 || p.now < q.at {
		return
	}
	p.refillTokens()
	items := q.items
	q.items, q.at, q.last = nil, 0, p.now
	byNet := map[string][]pushItem{}
	var names []string
	for _, it := range items {
		name := it.delta.Network
		if byNet[name] == nil {
			names = append(names, name)
		}
		byNet[name] = append(byNet[name], it)
	}
	for _, name := range names {
		p.flushNetwork(name, byNet[name])
	}
}

func (p *push) refillTokens() {
	q := &p.queue
	q.tokens = min(float64(p.cfg.PushBurst), q.tokens+float64(p.cfg.PushRate)*(p.now-q.filled).Seconds())
	if q.filled == 0 {
		q.tokens = float64(p.cfg.PushBurst)
	}
	q.filled = max(p.now, 1)
}

// flushNetwork sends the items of one network to its random targets, packed into as
// few datagrams as they fit.
func (p *push) flushNetwork(name string, items []pushItem) {
	not := []state.NodeID{}
	if len(items) == 1 {
		not = append(not, items[0].from, items[0].delta.Owner)
	}
	k := p.fanout(name, items)
	for _, to := range p.roster.pick(p.roster.living(name), k, not...) {
		e, open, own := p.newPacket(), false, false
		head := len(e.b)
		for _, it := range items {
			if it.from == to || it.delta.Owner == to {
				continue
			}
			size := deltaSize(it.delta)
			if open && len(e.b)+size > p.cfg.Datagram {
				e.close()
				p.sendPush(to, e, own)
				e, open, own = p.newPacket(), false, false
			}
			if !open {
				e.open(framePush)
				e.byte(byte(min(it.hops, 255)))
				open = true
			}
			e.delta(it.delta)
			own = own || it.from == ""
		}
		if open && len(e.b) > head {
			e.close()
			p.sendPush(to, e, own)
		}
	}
}

// fanout lowers k for deltas that have come so far that most have them: the
// wave of n nodes is over after log_k n hops.
func (p *push) fanout(name string, items []pushItem) int {
	hops := 255
	for _, it := range items {
		hops = min(hops, it.hops)
	}
	n := len(p.roster.living(name))
	depth := (bits.Len(uint(n)) + 1) * 10 / 26 // log_6 n, rounded up
	if hops > depth {
		return max(p.cfg.Fanout-1, 1)
	}
	return p.cfg.Fanout
}

// sendPush sends a push if the budget allows; what it does not is left to repair. A
// quarter of a burst is kept for what this node wrote itself, which nobody else
// can tell: a peer that floods has us drop what we hand on, not that.
func (p *push) sendPush(to state.NodeID, e *encoder, own bool) {
	need := float64(len(e.b))
	if !own {
		need += float64(p.cfg.PushBurst) / 4
	}
	if p.queue.tokens < need {
		p.Stats.PushDropped++
		return
	}
	p.queue.tokens -= float64(len(e.b))
	p.Stats.Pushes++
	p.outbox.sendUnmetered(to, e)
}

// reapAfter is how long a new life of an owner may take to say in which
// networks it takes part, before what it left behind in the others is dropped.
const reapAfter = 5 * time.Second

// maxReaps bounds how many may wait for that. What is over it is dropped when
// another says that it has buried it, or with its owner.
const maxReaps = 1 << 14

// maxHot bounds the list of recent news per network.
const maxHot = 64

// jitter returns d ± 25 %.
func (e *env) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(e.rng.Int64N(int64(d)/2+1))
}

// sendHot tells one random participant per network which streams changed
// lately: whoever missed the push pulls, without waiting for repair.
func (p *push) sendHot() {
	if len(p.hotTimes) == 0 || p.now < p.hotTimes[0] {
		return
	}
	p.hotTimes = p.hotTimes[1:]
	for _, name := range p.nets.order {
		n := p.nets.byName[name]
		hs := p.hotHeads(n, p.now-8*p.cfg.HotAfter, p.cfg.Datagram-128)
		if len(hs) == 0 {
			continue
		}
		for _, to := range p.roster.pick(p.roster.living(name), 1) {
			e := p.newPacket()
			e.heads(frameHot, name, 0, nil, false, hs)
			p.Stats.HotSent++
			p.outbox.send(to, e)
		}
	}
}

// hotHeads returns the heads of the streams that changed since, newest last,
// as many as fit a datagram.
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

// push spreads changes.
type push struct {
	*env
	roster *roster
	outbox *outbox
	nets   *nets
	pace   *pace

	queue    pushQueue
	hints    map[string][]hint
	hotTimes []time.Duration
}
