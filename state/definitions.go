package state

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// This file owns what the statements about networks come to on this node.

// Definitions is what the statements about networks come to on this node (V6,
// V8, V9). It is immutable; a store gives the same one while nothing changed.
// The maps are shared: do not change them.
type Definitions struct {
	Version   uint64                  // grows with every change
	Effective map[string]NetworkDef   // by name: the definition that this node goes by
	Disputes  map[string][]NetworkDef // by name: definitions with other pools that nodes state, most carried first
	// Overlaps names, for a network, the oldest of those whose pools touch its
	// own and that are older: whoever sees both should be told. Every node with
	// the same statements has the same. What is not programmed because of it is
	// for those to say who program it, each for the networks that it serves.
	Overlaps map[string]string
	Names    map[string]*Definition // everything that is stated, by name
}

// Definition is what is stated about one network. Immutable.
type Definition struct {
	Def     NetworkDef   // in effect here; without pools if there is none
	Defined bool         // a node states Def, and it is not withdrawn
	Own     NetworkClaim // what this node states; the zero value: nothing
	Stated  []Stated     // all that is stated, the one in effect first, then by rank
	Removed uint64       // highest Lamport time of a removal; 0: none
	gone    []NetworkClaim
}

// Stated is one definition with those who state it.
type Stated struct {
	Def       NetworkDef
	Carriers  int  // nodes that state it
	Answering int  // of these: this one, by its own hand, and those that answered it and live
	Pinned    int  // of these: because a person said so there
	Withdrawn bool // a node states its removal
}

// Withdrawn reports whether a node states the removal of that definition. A node that has
// tasks in the network keeps stating it nevertheless: then the removal is
// disputed, and without effect (V8).
func (d *Definition) Withdrawn(def NetworkDef) bool {
	if d == nil {
		return false
	}
	return slices.ContainsFunc(d.gone, func(r NetworkClaim) bool { return r.withdraws(def) })
}

// Withdrawn reports whether a node states the removal of that definition of def.Name.
func (d *Definitions) Withdrawn(def NetworkDef) bool { return d.Names[def.Name].Withdrawn(def) }

// Removal returns the latest removal of that definition, to be stated on, and
// whether there is one.
func (d *Definition) Removal(def NetworkDef) (NetworkClaim, bool) {
	if d == nil {
		return NetworkClaim{}, false
	}
	for _, r := range slices.Backward(d.gone) {
		if r.withdraws(def) {
			return r, true
		}
	}
	return NetworkClaim{}, false
}

// withdraws reports whether a removal is one of that definition: of its very
// pools, however often they were stated up to then.
func (c *NetworkClaim) withdraws(d NetworkDef) bool {
	return c.Removed && d.Birth <= max(c.Birth, c.Lamport) && c.samePools(&d)
}

// definer keeps the definitions of networks in line with the statements, name
// by name: it costs what changed, not what there is.
type definer struct {
	self NodeID // this node

	// What is stated.
	stated  map[string]NetworkClaim            // what this node itself stated last, whatever is in its stream (V6)
	of      map[NodeID]map[string]NetworkClaim // all that each owner states
	answers map[NodeID]struct{}                // owners that answered this node, and live
	ignored map[NodeID]struct{}                // owners of too many statements: they count for nothing
	recheck map[NodeID]struct{}                // owners that got over that limit, or below it again

	// What counts of it, and what it comes to.
	counted map[string]*statements // by network
	dirty   map[string]struct{}    // networks that may differ from cur
	cur     *Definitions           // published; never nil
	last    time.Duration          // when; monotonic
}

func newDefiner(self NodeID) *definer {
	return &definer{
		self: self, stated: map[string]NetworkClaim{}, of: map[NodeID]map[string]NetworkClaim{},
		answers: map[NodeID]struct{}{}, ignored: map[NodeID]struct{}{}, recheck: map[NodeID]struct{}{},
		counted: map[string]*statements{}, dirty: map[string]struct{}{}, cur: &Definitions{
			Effective: map[string]NetworkDef{}, Disputes: map[string][]NetworkDef{}, Overlaps: map[string]string{},
			Names: map[string]*Definition{},
		},
	}
}

// maxNetworks is how many networks one owner can state. One that states more
// states none, on every node alike: what the definitions come to costs what is
// stated, and no node takes part in so many.
const maxNetworks = 4096

// set replaces what an owner states about a network; nil: it states nothing.
func (f *definer) set(name string, o NodeID, c *NetworkClaim) {
	own := f.of[o]
	if own == nil {
		own = map[string]NetworkClaim{}
		f.of[o] = own
	}
	if c != nil {
		own[name] = *c
	} else if delete(own, name); len(own) == 0 {
		delete(f.of, o)
	}
	_, over := f.ignored[o]
	if !over {
		f.count(name, o, c)
	}
	if over != (len(own) > maxNetworks) {
		f.recheck[o] = struct{}{}
	}
}

// setOwn records what this node itself states about a network; nil: it
// states nothing. It counts however its stream is: empty after a goodbye, or the replica of
// a namesake's, who is not to say what is in effect here (V6, S7).
func (f *definer) setOwn(name string, c *NetworkClaim) {
	if c == nil {
		delete(f.stated, name)
	} else {
		f.stated[name] = *c
	}
	var streamed *NetworkClaim
	if x, ok := f.of[f.self][name]; ok {
		if _, over := f.ignored[f.self]; !over {
			streamed = &x
		}
	}
	f.count(name, f.self, streamed)
}

// recheckLimits makes the statements of owners that got over the limit count for
// nothing, and those of owners that are below it again count.
func (f *definer) recheckLimits() {
	for o := range f.recheck {
		own := f.of[o]
		_, was := f.ignored[o]
		switch over := len(own) > maxNetworks; {
		case over == was:
		case over:
			f.ignored[o] = struct{}{}
			for name := range own {
				f.count(name, o, nil)
			}
		default:
			delete(f.ignored, o)
			for name, c := range own {
				f.count(name, o, &c)
			}
		}
	}
	clear(f.recheck)
}

// setAnswers records whether an owner has answered this node, and lives.
func (f *definer) setAnswers(o NodeID, yes bool) {
	if _, was := f.answers[o]; was == yes || o == f.self {
		return
	}
	if yes {
		f.answers[o] = struct{}{}
	} else {
		delete(f.answers, o)
	}
	if _, over := f.ignored[o]; over {
		return
	}
	for name, c := range f.of[o] {
		f.count(name, o, &c)
	}
}

// count makes a statement of an owner count; nil: the owner states nothing. What
// this node's stream says and the node did not state itself comes from a namesake or
// an earlier life: it counts like that of an owner that does not answer, so that this
// node takes nothing over from it (V6).
func (f *definer) count(name string, o NodeID, c *NetworkClaim) {
	_, answers := f.answers[o]
	if h, ok := f.stated[name]; ok && o == f.self {
		c, answers = &h, true
	}
	s := f.counted[name]
	if s == nil {
		s = &statements{by: map[NodeID]statement{}, count: map[NetworkDef]*Stated{}, gone: map[NetworkClaim]int{}}
		f.counted[name] = s
	}
	f.dirty[name] = struct{}{}
	if old, ok := s.by[o]; ok {
		s.add(old, -1)
		delete(s.by, o)
	}
	if c != nil {
		x := statement{*c, answers}
		s.by[o] = x
		s.add(x, 1)
	}
	if len(s.by) == 0 {
		delete(f.counted, name)
	}
}

// participantsChanged records that the participants of a network changed: it matters where a
// removal is disputed.
func (f *definer) participantsChanged(name string) {
	if s := f.counted[name]; s != nil && len(s.gone) > 0 {
		f.dirty[name] = struct{}{}
	}
}

// resolve says what the statements about a network come to (V6, V8): a node
// that states a definition goes by it; one that does not goes by what most
// nodes state that answer it, then most nodes at all, then by the older.
func (f *definer) resolve(name string, takesPart func(NodeID) bool) *Definition {
	s := f.counted[name]
	if s == nil {
		return nil
	}
	d := &Definition{Def: NetworkDef{Name: name}, Own: f.stated[name]}
	for r := range s.gone {
		d.gone, d.Removed = append(d.gone, r), max(d.Removed, r.Lamport)
	}
	slices.SortFunc(d.gone, func(a, b NetworkClaim) int {
		pinned := 0
		if a.Pinned != b.Pinned {
			pinned = 1
			if a.Pinned {
				pinned = -1
			}
		}
		return cmp.Or(cmp.Compare(a.Lamport, b.Lamport), a.older(&b.NetworkDef), pinned)
	})
	for _, t := range s.count {
		e := *t
		e.Withdrawn = d.Withdrawn(e.Def)
		d.Stated = append(d.Stated, e)
	}
	rank(d.Stated)
	at := slices.IndexFunc(d.Stated, func(e Stated) bool { return f.eligible(d, s, e, takesPart) })
	if at < 0 {
		return d
	}
	e := d.Stated[at]
	copy(d.Stated[1:at+1], d.Stated[:at])
	d.Stated[0], d.Def, d.Defined = e, e.Def, true
	return d
}

// eligible reports whether a definition may be in effect here.
func (f *definer) eligible(d *Definition, s *statements, e Stated, takesPart func(NodeID) bool) bool {
	switch {
	case d.Own.Name != "" && !d.Own.Removed:
		return e.Def == d.Own.NetworkDef
	case !e.Withdrawn:
		return true
	case d.Own.Removed && d.Own.withdraws(e.Def):
		return false
	}
	for o, c := range s.by { // a node uses it in spite of the removal
		if c.NetworkDef == e.Def && !c.Removed && takesPart(o) {
			return true
		}
	}
	return false
}

// rank sorts definitions of one name: by how many nodes that answer state their
// pools, since a name costs nothing to make up, then by how many nodes do, then
// by how many that answer, and how many at all, state the very definition, then
// the older first.
func rank(ds []Stated) {
	type votes struct{ answering, all int }
	byPools := map[[2]netip.Prefix]votes{}
	for _, d := range ds {
		v := byPools[d.Def.pools()]
		byPools[d.Def.pools()] = votes{v.answering + d.Answering, v.all + d.Carriers}
	}
	slices.SortFunc(ds, func(a, b Stated) int {
		x, y := byPools[a.Def.pools()], byPools[b.Def.pools()]
		return cmp.Or(cmp.Compare(y.answering, x.answering), cmp.Compare(y.all, x.all),
			cmp.Compare(b.Answering, a.Answering), cmp.Compare(b.Carriers, a.Carriers), a.Def.older(&b.Def))
	})
}

// disputes returns the definitions with other pools than the effective one,
// each pair of pools once.
func (d *Definition) disputes() []NetworkDef {
	if !d.Defined {
		return nil
	}
	seen := map[[2]netip.Prefix]bool{d.Def.pools(): true}
	var out []NetworkDef
	for _, e := range d.Stated {
		if p := e.Def.pools(); !seen[p] && !e.Withdrawn {
			seen[p] = true
			out = append(out, e.Def)
		}
	}
	return out
}

// manyNetworks is from how many networks on a snapshot is made at a bounded
// rate, and manyPeriod that rate's period, for each as many: each one copies the maps.
const (
	manyNetworks = 1024
	manyPeriod   = 100 * time.Millisecond
)

// publish brings the snapshot up to date and returns it with the names whose
// effective definition changed, or how long until it may be made. With now 0 it
// may be made at once.
func (f *definer) publish(now time.Duration, s *Store) (changed []string, again time.Duration) {
	if len(f.dirty)+len(f.recheck) == 0 {
		return nil, 0
	}
	if wait := f.last + manyPeriod*time.Duration(len(f.cur.Names)/manyNetworks) - now; now > 0 &&
		len(f.cur.Names) >= manyNetworks && f.last > 0 && wait > 0 {
		return nil, wait
	}
	f.last = max(f.last, now)
	f.recheckLimits()
	n := &Definitions{
		Version: f.cur.Version + 1, Effective: f.cur.Effective, Disputes: f.cur.Disputes,
		Overlaps: f.cur.Overlaps, Names: maps.Clone(f.cur.Names),
	}
	same := true
	for name := range f.dirty {
		old := f.cur.Names[name]
		d := f.resolve(name, func(o NodeID) bool { return s.takesPart(name, o) })
		if old.equal(d) {
			continue
		}
		same = false
		if d == nil {
			delete(n.Names, name)
		} else {
			n.Names[name] = d
		}
		if old.effective(name) != d.effective(name) {
			changed = append(changed, name)
		}
	}
	clear(f.dirty)
	slices.Sort(changed)
	if same {
		return nil, 0
	}
	n.Effective, n.Disputes = make(map[string]NetworkDef, len(n.Names)), map[string][]NetworkDef{}
	for name, d := range n.Names {
		if d.Defined {
			n.Effective[name] = d.Def
		}
		if ds := d.disputes(); len(ds) > 0 {
			n.Disputes[name] = ds
		}
	}
	if len(changed) > 0 {
		n.Overlaps = overlaps(n.Effective)
	}
	f.cur = n
	return changed, 0
}

func (d *Definition) effective(name string) NetworkDef {
	if d == nil {
		return NetworkDef{Name: name}
	}
	return d.Def
}

func (d *Definition) equal(o *Definition) bool {
	if d == nil || o == nil {
		return d == o
	}
	return d.Def == o.Def && d.Defined == o.Defined && d.Own == o.Own && slices.Equal(d.Stated, o.Stated) &&
		slices.Equal(d.gone, o.gone)
}
