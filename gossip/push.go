package gossip

import (
	"math/bits"
	"time"

	"meshd/state"
)

// This file owns the way of a change through the mesh (G3, G7): what waits to be
// pushed or announced, and the bytes that may be spent on it.

// push spreads what this node wrote, and relays what others push.
type push struct {
	*env
	roster *roster // to whom
	outbox *outbox // where packets go
	nets   *nets   // of which tables
	pace   *pace   // news makes repair busy

	queue    pushQueue             // what waits to be pushed
	hints    map[string][]hint     // by network: what the packet at hand brought and is to be announced
	hot      map[*network]struct{} // those with recent news
	hotTimes []time.Duration       // when recent news is mentioned again, in order, at most hintTurns
	lastNews time.Duration         // when the last news came
}

// newPush returns a push with nothing to spread.
func newPush(e *env, r *roster, o *outbox, n *nets, p *pace) push {
	return push{
		env: e, roster: r, outbox: o, nets: n, pace: p, hints: map[string][]hint{}, hot: map[*network]struct{}{},
	}
}

// pushQueue holds the deltas that wait to be pushed (G3).
type pushQueue struct {
	items  []pushItem
	at     time.Duration // when they are pushed; 0: nothing waits
	last   time.Duration // when anything was last pushed
	tokens float64       // bytes that may be pushed now (G7)
	filled time.Duration // when tokens were last added; 0: never
}

// pushItem is a delta that waits.
type pushItem struct {
	delta *state.Delta
	from  state.NodeID // who brought it; "": this node wrote it
	hops  int          // how far it has come
}

// maxQueued bounds the deltas of others in the queue; what is over it is left to
// repair (G7). What this node wrote itself always finds room.
const maxQueued = 4096

// pushOwn pushes what this node wrote to its own stream of n since the last call.
func (p *push) pushOwn(n *network) {
	h, _ := n.table.Head(p.cfg.Self)
	if h.Version == n.pushed {
		return
	}
	w := state.Want{Owner: p.cfg.Self, Inc: h.Inc, From: n.pushed, After: n.pushed}
	if n.pushed == 0 {
		w.Inc = 0 // the first push is a snapshot
	}
	n.pushed = h.Version
	d := n.table.Delta(w, p.cfg.Datagram)
	p.recordNews(n, p.cfg.Self)
	if d == nil || d.Upto != d.To || deltaSize(d) > p.cfg.Datagram-64 || p.yielded {
		p.advertise(n, p.cfg.Self, "")
		return
	}
	p.enqueue(pushItem{delta: d})
}

// deltaSize estimates the encoded size of a delta, from above.
func deltaSize(d *state.Delta) int {
	n := 64 + len(d.Network) + len(d.Owner)
	for i := range d.Records {
		r := &d.Records[i]
		n += 12 + len(r.Key) + len(r.Group) + len(r.Body)
	}
	return n
}

// enqueue adds a delta to the queue.
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

// flush pushes what waits, if it is due. A node at rest pushes at once; one that
// has just pushed waits for Coalesce, so that changes travel together.
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

// flushNow pushes what waits at once.
func (p *push) flushNow() {
	if p.queue.at > 0 {
		p.queue.at = p.now
		p.flush()
	}
}

// refillTokens adds the bytes that may be pushed by now.
func (p *push) refillTokens() {
	q := &p.queue
	q.tokens = min(float64(p.cfg.PushBurst), q.tokens+float64(p.cfg.PushRate)*(p.now-q.filled).Seconds())
	if q.filled == 0 {
		q.tokens = float64(p.cfg.PushBurst)
	}
	q.filled = max(p.now, 1)
}

// flushNetwork sends the items of one network to its random targets, in as few
// datagrams as they fit.
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

// fanout is how many participants the items are sent to. It is lower for deltas
// that have come so far that most nodes have them: a change has reached all n
// nodes after about log_k n hops.
func (p *push) fanout(name string, items []pushItem) int {
	hops := 255
	for _, it := range items {
		hops = min(hops, it.hops)
	}
	n := p.roster.living(name).Len()
	depth := (bits.Len(uint(n)) + 1) * 10 / 26 // log_6 n, rounded up
	if hops > depth {
		return max(p.cfg.Fanout-1, 1)
	}
	return p.cfg.Fanout
}

// sendPush sends a push if the budget allows; what is over it is left to repair.
// A quarter of a burst is kept for what this node wrote itself, which no other
// node can push: a peer that floods this node makes it drop relayed deltas, not
// its own.
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
