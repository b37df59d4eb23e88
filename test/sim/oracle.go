package sim

import (
	"net/netip"
	"time"

	"meshd/gossip"
)

// Oracle tunes the membership that stands in for memberlist. The zero value of
// a field means its default, from measurements of memberlist v0.7.0 with a
// 200 ms probe interval.
type Oracle struct {
	DetectMin, DetectMax time.Duration // until a crash is known to a member
	SplitMax             time.Duration // the longest that a partition takes to be seen
	JoinMin, JoinMax     time.Duration // until a member is known to another after a join
	Holes                float64       // share of pairs that a join misses
	HoleMax              time.Duration // until push/pull fills them
	FalseDeaths          float64       // per node and minute
	RejoinMin, RejoinMax time.Duration // until the reconnect loops bridge a healed partition
}

func (o *Oracle) setDefaults() {
	def(&o.DetectMin, 1800*time.Millisecond)
	def(&o.DetectMax, 2600*time.Millisecond)
	def(&o.SplitMax, 6*time.Second)
	def(&o.JoinMin, 2*time.Millisecond)
	def(&o.JoinMax, 300*time.Millisecond)
	def(&o.Holes, 0.02)
	def(&o.HoleMax, 30*time.Second)
	def(&o.RejoinMin, 500*time.Millisecond)
	def(&o.RejoinMax, 5*time.Second)
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// oracle says which members each node lists.
type oracle struct {
	w      *World
	cfg    Oracle
	listed map[pair]bool // from lists to
	due    map[pair]news // what is on its way
	seq    uint64
	gone   map[int32]bool // left in order
	dirty  bool
	comp   []int // cache of components
}

// news is what a node is about to learn of another.
type news struct {
	seq   uint64
	alive bool
	at    time.Duration
}

func (o *oracle) init(w *World, cfg Oracle) {
	cfg.setDefaults()
	*o = oracle{w: w, cfg: cfg, listed: map[pair]bool{}, due: map[pair]news{}, gone: map[int32]bool{}}
	if cfg.FalseDeaths > 0 {
		w.After(o.between(0, time.Minute), o.falseDeath)
	}
}

// silent reports whether there is no membership but what a test says.
func (o *oracle) silent() bool { return o.w.opt.Static || o.w.opt.Script }

func (o *oracle) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(o.w.rng.Float64()*float64(hi-lo))
}

// started is called when a node's process begins: it lists nobody and joins.
// Those who still list it notice nothing (G11).
func (o *oracle) started(n *Node) {
	o.comp = nil
	delete(o.gone, n.index)
	for i := range o.w.nodes {
		delete(o.listed, pair{n.index, int32(i)})
		delete(o.due, pair{n.index, int32(i)})
	}
	o.review(o.cfg.JoinMin, o.cfg.JoinMax)
}

// left is called when a node leaves in order.
func (o *oracle) left(n *Node) {
	o.gone[n.index] = true
	for i := range o.w.nodes {
		p := pair{int32(i), n.index}
		if o.listed[p] {
			o.w.After(o.between(time.Millisecond, 300*time.Millisecond), func() {
				if o.listed[p] && o.gone[n.index] {
					delete(o.listed, p)
					// as the host: memberlist tells both in one way
					o.tell(p, func(now time.Duration, c *gossip.Core) { c.MemberDead(now, n.ID) })
				}
			})
		}
	}
}

// changed is called when links or nodes changed; the review comes once per moment.
func (o *oracle) changed() {
	o.comp = nil
	if !o.dirty && !o.silent() {
		o.dirty = true
		o.w.After(0, func() { o.dirty = false; o.review(o.cfg.RejoinMin, o.cfg.RejoinMax) })
	}
}

// components numbers the groups of nodes that reach each other both ways,
// if need be through others.
func (o *oracle) components() []int {
	if o.comp != nil {
		return o.comp
	}
	comp := make([]int, len(o.w.nodes))
	o.comp = comp
	next := 0
	for i, n := range o.w.nodes {
		if !n.up || n.paused || comp[i] != 0 {
			continue
		}
		next++
		comp[i] = next
		for todo := []int{i}; len(todo) > 0; {
			at := todo[0]
			todo = todo[1:]
			for j, m := range o.w.nodes {
				if m.up && !m.paused && comp[j] == 0 && o.talk(at, j) {
					comp[j] = next
					todo = append(todo, j)
				}
			}
		}
	}
	return comp
}

func (o *oracle) talk(i, j int) bool {
	if len(o.w.cuts) == 0 {
		return true
	}
	a, b := int32(i), int32(j)
	return (o.w.cuts[pair{a, b}]|o.w.cuts[pair{b, a}])&CutDatagrams == 0
}

// review schedules the news that memberlist would bring.
func (o *oracle) review(lo, hi time.Duration) {
	if o.silent() {
		return
	}
	comp := o.components()
	for i, n := range o.w.nodes {
		if !n.up {
			continue
		}
		for j := range o.w.nodes {
			p := pair{int32(i), int32(j)}
			if i == j || o.w.nodes[j].ID == n.ID || o.gone[int32(j)] {
				continue
			}
			want := comp[i] != 0 && comp[i] == comp[j]
			if due, waiting := o.due[p]; want == o.listed[p] || waiting && due.alive == want {
				continue
			}
			if want {
				o.later(p, true, o.joinDelay(lo, hi))
			} else if comp[i] != 0 {
				o.later(p, false, o.deathDelay(comp, j))
			}
		}
	}
}

func (o *oracle) joinDelay(lo, hi time.Duration) time.Duration {
	if o.w.chance(o.cfg.Holes) {
		return o.between(hi, o.cfg.HoleMax)
	}
	return o.between(lo, hi)
}

func (o *oracle) deathDelay(comp []int, j int) time.Duration {
	if comp[j] != 0 {
		return o.between(o.cfg.DetectMin, o.cfg.SplitMax)
	}
	return o.between(o.cfg.DetectMin, o.cfg.DetectMax)
}

// later lists or unlists after d, unless something newer is decided for the pair.
func (o *oracle) later(p pair, alive bool, d time.Duration) {
	o.seq++
	seq := o.seq
	o.due[p] = news{seq, alive, o.w.now + d}
	o.w.After(d, func() {
		if o.due[p].seq != seq {
			return
		}
		delete(o.due, p)
		o.apply(p, alive)
	})
}

// apply makes the listing true if it still is what memberlist would find.
func (o *oracle) apply(p pair, alive bool) {
	comp := o.components()
	if want := comp[p.from] != 0 && comp[p.from] == comp[p.to]; want != alive || o.listed[p] == alive || o.gone[p.to] {
		return
	}
	to := o.w.nodes[p.to]
	if alive {
		o.listed[p] = true
		o.tell(p, func(now time.Duration, c *gossip.Core) { c.MemberAlive(now, to.ID, to.Addr) })
		return
	}
	delete(o.listed, p)
	o.tell(p, func(now time.Duration, c *gossip.Core) { c.MemberDead(now, to.ID) })
}

func (o *oracle) tell(p pair, f func(time.Duration, *gossip.Core)) {
	n := o.w.nodes[p.from]
	if n.paused { // its memberlist tells it on resumption
		n.heldNews = append(n.heldNews, f)
	} else {
		n.Do(f)
	}
}

// rejoin is what a host does when its core met a node that the membership
// lost: it joins it, and each learns the other's members soon.
func (o *oracle) rejoin(n *Node, addr netip.AddrPort) {
	j, ok := o.w.byAddr[addr]
	if !ok || o.silent() {
		return
	}
	o.w.After(o.between(5*time.Millisecond, 20*time.Millisecond), func() {
		m := o.w.nodes[j]
		if !n.up || !m.up || m.paused || !o.talk(int(n.index), int(j)) {
			return
		}
		for _, p := range []pair{{n.index, j}, {j, n.index}} {
			if !o.listed[p] {
				o.later(p, true, 0)
			}
		}
		o.expedite(n.index)
		o.expedite(j)
	})
}

// expedite brings forward what a node is about to learn of others, and they of
// it. What they would learn sooner anyway stays.
func (o *oracle) expedite(i int32) {
	for k := range o.w.nodes {
		for _, p := range []pair{{i, int32(k)}, {int32(k), i}} {
			d := o.between(20*time.Millisecond, 800*time.Millisecond)
			if due, waiting := o.due[p]; waiting && due.alive && o.w.now+d < due.at {
				o.later(p, true, d)
			}
		}
	}
}

// falseDeath lets a node be thought dead by a share of the others for a while.
func (o *oracle) falseDeath() {
	if o.cfg.FalseDeaths == 0 {
		return // switched off meanwhile
	}
	every := time.Duration(float64(time.Minute) / o.cfg.FalseDeaths / float64(len(o.w.nodes)))
	o.w.After(o.between(0, 2*every), o.falseDeath)
	victim := int32(o.w.rng.IntN(len(o.w.nodes)))
	if v := o.w.nodes[victim]; !v.up || v.paused {
		return
	}
	share := o.w.rng.Float64()
	for i := range o.w.nodes {
		p := pair{int32(i), victim}
		if o.listed[p] && o.w.chance(share) {
			delete(o.listed, p)
			id := o.w.nodes[victim].ID
			o.tell(p, func(now time.Duration, c *gossip.Core) { c.MemberDead(now, id) })
			o.later(p, true, o.between(300*time.Millisecond, 1500*time.Millisecond))
		}
	}
}
