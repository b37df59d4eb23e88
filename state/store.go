package state

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// This file owns the tables of one node and what it knows of other nodes.

// Clock is Lamport time: it orders claims and settings (S8). A store calls it
// from the goroutine that owns the store.
type Clock interface {
	// Time returns the time without advancing it.
	Time() uint64
	// Tick advances the clock and returns the new time.
	Tick() uint64
	// Witness moves the clock past a time seen in a peer's statement.
	Witness(t uint64)
}

// Store holds the tables of one node: the global scope and the networks that
// the node takes part in (G6). It belongs to one goroutine, but for the
// methods of Source and Definitions.
type Store struct {
	// This node.
	self    NodeID
	inc     uint64  // its highest incarnation in this life (S7)
	limits  Limits  // of each owner, each table and all together (S13, S19)
	clock   *belief // Lamport time (S8, S16)
	yielded bool    // another live node has its name and came first (S7)

	// The tables.
	global      *Table            // of the global scope
	tables      map[string]*Table // by network
	order       []*Table          // see Tables; replaced, never changed
	ownerTables                   // by owner with a stream
	work        worklist          // of the tables
	total       usage             // of all tables (S19)
	pools       *poolSet          // of the networks in tables

	// What the mesh says of nodes and networks.
	live          map[NodeID]Liveness // shared with the tables; missing: Dead
	nodes         map[NodeID]NodeInfo // what each says about itself
	participation                     // who takes part where (G6)
	definer       *definer            // definitions of networks
	disbelief     Disbelief           // claims about this node's incarnation that are not believed (S16)

	// For readers.
	readers     atomic.Pointer[readers]     // see Source; never nil
	definitions atomic.Pointer[Definitions] // as of the last step; never nil
}

// readers is what Source shows of a store.
type readers struct {
	names []string
	views map[string]View
	stale chan struct{}
}

// NewStore returns the empty store of a node that lives its incarnation inc.
func NewStore(self NodeID, inc uint64, limits Limits, clock Clock) *Store {
	s := &Store{
		self: self, inc: inc, limits: limits.withTotals(), clock: newBelief(clock),
		tables: map[string]*Table{}, ownerTables: ownerTables{}, live: map[NodeID]Liveness{self: Alive},
		participation: participation{members: map[string][]NodeID{}},
		nodes:         map[NodeID]NodeInfo{}, definer: newDefiner(self),
	}
	s.global = newTable("", s)
	s.global.index.globals, s.global.committed = s.globalChanged, s.recordOwn
	s.reorder()
	s.readers.Store(&readers{stale: make(chan struct{})})
	s.definitions.Store(s.definer.cur)
	return s
}

// Self returns the node's own name.
func (s *Store) Self() NodeID { return s.self }

// Incarnation returns the node's highest incarnation in this life.
func (s *Store) Incarnation() uint64 { return s.inc }

// Clock returns the Lamport clock of the store. It follows peers only as far as
// they can be believed (S16).
func (s *Store) Clock() Clock { return s.clock }

// Disbelieved returns what peers claimed about this node's incarnation and it does
// not believe.
func (s *Store) Disbelieved() Disbelief { return s.disbelief }

// Global returns the table of the global scope.
func (s *Store) Global() *Table { return s.global }

// Table returns the table of a network that the node takes part in, or nil;
// "" is the global scope.
func (s *Store) Table(network string) *Table {
	if network == "" {
		return s.global
	}
	return s.tables[network]
}

// Tables returns the tables, the global scope first, then by name. The slice
// is the store's; do not change it.
func (s *Store) Tables() []*Table { return s.order }

// reorder makes Tables anew.
func (s *Store) reorder() {
	s.order = []*Table{s.global} // a new slice: a caller may be iterating over the old one
	for _, n := range slices.Sorted(maps.Keys(s.tables)) {
		s.order = append(s.order, s.tables[n])
	}
}

// Join makes the node carry a network's table and returns it.
func (s *Store) Join(network string) *Table {
	if t := s.tables[network]; t != nil {
		return t
	}
	t := newTable(network, s)
	if d, ok := s.Defs()[network]; ok {
		t.SetDef(d)
	}
	s.tables[network] = t
	s.reorder()
	s.updatePools()
	s.publishNames()
	return t
}

// Leave drops the table of a network that the node no longer takes part in.
func (s *Store) Leave(network string) {
	if t := s.tables[network]; t != nil {
		s.total.add(t.use, -1)
		for o := range t.streams {
			s.setStream(o, t, false)
		}
		delete(s.tables, network)
		s.reorder()
		s.updatePools()
		s.publishNames()
	}
}

// Reincarnate puts the node's streams above an incarnation seen in the mesh (S7).
func (s *Store) Reincarnate(inc uint64) {
	s.inc = max(s.inc, inc)
	for _, t := range s.Tables() {
		t.Reincarnate(s.inc)
	}
}

// Renew makes the network that is joined next start a higher incarnation: the
// node took part in it before in this life.
func (s *Store) Renew() { s.inc++ }

// DropAbandoned drops the streams that an owner left behind in networks of which its
// newer incarnation says nothing: it lost its disk, or left while we were away.
func (s *Store) DropAbandoned(o NodeID) {
	g, ok := s.global.Head(o)
	if !ok || o == s.self {
		return
	}
	for _, t := range s.TablesOf(o) {
		if t == s.global || s.takesPart(t.network, o) {
			continue
		}
		if h, ok := t.Head(o); ok && h.Inc < g.Inc {
			t.Retire(o)
		}
	}
}

// SetYielded records whether another live node with this node's name came first. While
// it has the name, this node's own streams are replicas of that node's (S7).
func (s *Store) SetYielded(y bool) {
	s.yielded = y
	for _, t := range s.Tables() {
		t.yielded = y
	}
}

// SetLiveness records what this node thinks of an owner, in every table in which it
// has a stream (S9).
func (s *Store) SetLiveness(o NodeID, l Liveness) {
	s.live[o] = l
	for _, t := range s.ownerTables[o] {
		t.SetLiveness(o, l)
	}
}

// SetAnswers records whether an owner has answered this node and lives. What such
// owners state about networks comes before what others are said to state (V6).
func (s *Store) SetAnswers(o NodeID, yes bool) { s.definer.setAnswers(o, yes) }

// Liveness returns what this node thinks of an owner; Dead if it knows nothing.
func (s *Store) Liveness(o NodeID) Liveness { return s.live[o] }

// Forget drops what is known of an owner's liveness.
func (s *Store) Forget(o NodeID) {
	delete(s.live, o)
	s.definer.setAnswers(o, false)
}

// Apply merges a delta into the table of its network. A network that the node
// does not take part in is Ignored.
func (s *Store) Apply(d *Delta) (Result, error) {
	t := s.Table(d.Network)
	if t == nil {
		return Ignored, nil
	}
	return t.Apply(d)
}

// globalChanged keeps the digest of the global scope: who takes part where.
func (s *Store) globalChanged(e *Entry, listed bool) {
	switch e.Kind() {
	case KindMember:
		s.definer.participantsChanged(e.Key())
		s.setParticipates(e.Key(), e.Owner(), listed)
	case KindNetwork:
		if !listed {
			s.definer.set(e.Key(), e.Owner(), nil)
			return
		}
		c, _ := readNetwork(e.Key(), e.Body()) // the entry is not poison
		s.global.index.witness(c.Birth)
		s.global.index.witness(c.Lamport)
		s.definer.set(e.Key(), e.Owner(), &c)
	case KindNode:
		if !listed {
			delete(s.nodes, e.Owner())
			return
		}
		n, _ := parseNode(e.Body())
		s.nodes[e.Owner()] = n
	}
}

// recordOwn keeps what this node states of networks by its own hand.
func (s *Store) recordOwn(changes []Change) {
	for _, ch := range changes {
		if ch.Kind != KindNetwork {
			continue
		}
		if c, err := readNetwork(ch.Key, ch.Body); !ch.Delete && err == nil {
			s.definer.setOwn(ch.Key, &c)
		} else {
			s.definer.setOwn(ch.Key, nil)
		}
	}
}

// Stated returns the names of the networks of which this node states something
// itself, sorted: also when its stream does not say so, since it has said goodbye
// or another node has its name.
func (s *Store) Stated() []string { return slices.Sorted(maps.Keys(s.definer.stated)) }

// Node returns what a node says about itself.
func (s *Store) Node(o NodeID) (NodeInfo, bool) {
	n, ok := s.nodes[o]
	return n, ok
}

// Definitions returns what the definitions of networks come to as of the last
// step. The same pointer means that nothing changed. Safe for concurrent use.
func (s *Store) Definitions() *Definitions { return s.definitions.Load() }

// Defs returns the effective network definitions. The map is the store's.
func (s *Store) Defs() map[string]NetworkDef { s.define(0); return s.definer.cur.Effective }

// Disputes returns, per network, the definitions that contradict the effective
// one (V6). The map is the store's.
func (s *Store) Disputes() map[string][]NetworkDef { s.define(0); return s.definer.cur.Disputes }

// define brings the definitions up to date, and the tables of the networks
// that this node takes part in.
func (s *Store) define(now time.Duration) (again time.Duration) {
	changed, again := s.definer.publish(now, s)
	s.definitions.Store(s.definer.cur)
	mine := false
	for _, name := range changed {
		if t := s.tables[name]; t != nil {
			t.SetDef(s.definer.cur.Names[name].effective(name))
			mine = true
		}
	}
	if mine { // readers see the definitions of joined networks only
		s.updatePools()
		s.publishNames()
	}
	return again
}

// Publish makes all changes visible to readers. It returns how long until what
// the bounded rate of S14 held back is due, 0 if nothing was.
func (s *Store) Publish(now time.Duration) (again time.Duration) {
	s.clock.now = now
	return sooner(s.define(now), s.work.publish(now))
}

func (s *Store) publishNames() {
	r := &readers{names: slices.Sorted(maps.Keys(s.tables)), views: map[string]View{}, stale: make(chan struct{})}
	for n, t := range s.tables {
		r.views[n] = t.View()
	}
	close(s.readers.Swap(r).stale)
}

// View implements Source.
func (s *Store) View(network string) View {
	v, ok := s.readers.Load().views[network]
	if !ok {
		return nil
	}
	return v
}

// Networks implements Source.
func (s *Store) Networks() (names []string, stale <-chan struct{}) {
	r := s.readers.Load()
	return r.names, r.stale
}
