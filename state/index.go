package state

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
)

// index is the readers' side of one table: what View promises. Everything
// reached through services, names and lookups is immutable and replaced; the
// rest belongs to the table's goroutine.
type index struct {
	network  string
	services *xsync.Map[string, *svc] // readers look at svc.view only
	names    *xsync.Map[string, *nameSet]
	addrs    addrIndex
	def      atomic.Pointer[NetworkDef]
	synced   atomic.Bool
	changes  atomic.Uint64
	recent   [recentChanges]atomic.Pointer[recentChange]
	subs     *xsync.Map[*Subscription, struct{}]

	// The table's goroutine only.
	clock      *belief
	dirty      []*svc
	vips       *vipTable
	globals    func(*Entry) // of the global scope: told about its records; nil elsewhere
	unbelieved uint64       // times in claims that were not believed, ever (S16)
	claims     bool         // a claim, a setting or the definition changed since takeClaims

	self     NodeID
	loopback bool                // loopback addresses of tasks are shown
	pools    *poolSet            // the store's
	barred   map[*Entry]struct{} // listed, and not shown for a reason of their own (S18)
	regain   bool                // an id changed hands in this publication
	twins    map[string][]*Entry // of these, by id, those that lost it to another owner

	// Scratch of publish.
	nameOps []nameOp
	removed []*Entry
	changed []string
}

// svc is the writer's side of one service. What it has added and taken away
// since the last publication is told to readers by the next, and only then:
// members, names and addresses change together (S4).
type svc struct {
	view     atomic.Pointer[Service] // published; nil: none. All else is the table's goroutine's
	name     string
	added    []*Entry // to be shown
	taken    []*Entry // shown, and not to be any more
	settings []*Entry // KindSettings of every carrier
	ports    []tally[Port]
	aliases  []tally[string]
	hidden   int32         // endpoints whose owner is dead
	claims   int32         // KindVIP records
	in4, in6 int32         // endpoints with an address of the family, those of dead owners included, barred ones not
	last     time.Duration // of the last publication
	dirty    bool
	crowded  bool // too many ports or aliases to be counted: see survey
	resort   bool // an owner's liveness changed: the order of members may differ
	urgent   bool // an address changed: do not hold back (V5)
}

func newIndex(network string, clock *belief) *index {
	ix := &index{
		network: network, clock: clock, vips: newVIPTable(NetworkDef{Name: network}),
		services: xsync.NewMap[string, *svc](), names: xsync.NewMap[string, *nameSet](),
		subs: xsync.NewMap[*Subscription, struct{}](), barred: map[*Entry]struct{}{}, twins: map[string][]*Entry{},
	}
	ix.addrs.init()
	ix.def.Store(&NetworkDef{Name: network})
	return ix
}

// Network implements View.
func (ix *index) Network() string { return ix.network }

// Def implements View.
func (ix *index) Def() NetworkDef { return *ix.def.Load() }

// Synced implements View.
func (ix *index) Synced() bool { return ix.synced.Load() }

// recentChanges is how many changes ChangedSince knows, recentNames of how many
// services at most each.
const (
	recentChanges = 256
	recentNames   = 64
)

// recentChange is what changed as the count of changes came to number.
type recentChange struct {
	number uint64
	names  []string
}

// Changes implements View.
func (ix *index) Changes() uint64 { return ix.changes.Load() }

// ChangedSince implements View.
func (ix *index) ChangedSince(since, until uint64, f func(service string)) bool {
	if until-since > recentChanges {
		return false
	}
	for n := since + 1; n <= until; n++ {
		c := ix.recent[n%recentChanges].Load()
		if c == nil || c.number != n {
			return false
		}
		for _, name := range c.names {
			f(name)
		}
	}
	return true
}

// Service implements View.
func (ix *index) Service(name string) *Service {
	if s, _ := ix.services.Load(name); s != nil {
		return s.view.Load()
	}
	return nil
}

// Services implements View.
func (ix *index) Services() []*Service {
	var ss []*Service
	for _, s := range ix.services.All() {
		if v := s.view.Load(); v != nil {
			ss = append(ss, v)
		}
	}
	slices.SortFunc(ss, func(a, b *Service) int { return strings.Compare(a.Name, b.Name) })
	return ss
}

// Subscribe implements View.
func (ix *index) Subscribe() *Subscription {
	var s *Subscription
	s = newSubscription(func() { ix.subs.Delete(s) })
	ix.subs.Store(s, struct{}{})
	return s
}

// notify tells the subscribers which services changed, and everybody that
// something did. What changed can be seen by then.
func (ix *index) notify(names ...string) {
	n := ix.changes.Load() + 1
	if len(names) <= recentNames {
		ix.recent[n%recentChanges].Store(&recentChange{n, slices.Clone(names)})
	}
	ix.changes.Store(n)
	for s := range ix.subs.All() {
		s.mark(names)
	}
}

// setSynced records the first full exchange and tells subscribers.
func (ix *index) setSynced() {
	if !ix.synced.Swap(true) {
		ix.claims = true // claims may be made now
		ix.notify("")
	}
}

// setDef installs the effective definition; every VIP is judged anew.
func (ix *index) setDef(d NetworkDef) {
	if *ix.def.Load() == d {
		return
	}
	ix.def.Store(&d)
	ix.vips.setDef(d)
	ix.claims = true
	for _, s := range ix.services.All() {
		s.urgent = true
		ix.mark(s)
	}
	ix.notify("")
}

func (ix *index) svc(name string) *svc {
	s, _ := ix.services.Load(name)
	if s == nil {
		s = &svc{name: strings.Clone(name)}
		ix.services.Store(s.name, s)
	}
	return s
}

// carriers returns how many owners state settings of a service.
func (ix *index) carriers(name string) int {
	if s, _ := ix.services.Load(name); s != nil {
		return len(s.settings)
	}
	return 0
}

func (ix *index) mark(s *svc) {
	if !s.dirty {
		s.dirty = true
		ix.dirty = append(ix.dirty, s)
	}
}

// markVIP marks a service whose addresses may differ now. They are published at
// once, so that no address is seen at two services (V5).
func (ix *index) markVIP(name string) {
	s := ix.svc(name)
	s.urgent = true
	ix.mark(s)
}

// change replaces old by cur in the views; either may be nil, not both.
func (ix *index) change(old, cur *Entry) {
	if old != nil && !old.listed {
		old = nil
	}
	if cur != nil && cur.poison {
		cur = nil
	}
	if cur != nil {
		cur.bar = ix.barOf(cur)
	}
	if old != nil && cur != nil && old.svc != nil && old.Group() == cur.Group() {
		cur.svc = old.svc
		if old.row > 0 && old.samePlace(cur) && cur.effective() != Hidden {
			cur.row, old.row = old.row, 0 // takes the place over when it is published
		}
	}
	if old != nil {
		ix.unlist(old)
	}
	if cur != nil {
		ix.list(cur)
	}
}

func (ix *index) list(e *Entry) {
	e.listed = true
	if ix.globals != nil {
		ix.globals(e)
		return
	}
	switch e.Kind() {
	case KindEndpoint:
		if e.svc == nil {
			e.svc = ix.svc(e.Group())
		}
		ix.mark(e.svc)
		e.svc.countFamilies(e, 1)
		if e.bar != BarNone {
			ix.bar(e, e.bar)
		}
		if e.hidden = e.effective() == Hidden; e.hidden {
			e.svc.hidden++
		} else {
			e.svc.added = append(e.svc.added, e)
		}
	case KindVIP:
		c, _ := ParseVIPClaim(e.Key(), e.Body())
		ix.svc(c.Service).claims++
		ix.claims = true
		ix.witness(c.Birth)
		ix.vips.add(c, e.Body(), ix.markVIP)
	case KindSettings:
		s := ix.svc(e.Key())
		s.settings = append(s.settings, e)
		c, _ := ParseSettings(e.Body())
		ix.witness(c.Lamport)
		ix.claims = true
		ix.mark(s)
	}
}

// witness moves the clock past a time in a statement, if it can be true.
func (ix *index) witness(t uint64) {
	if !ix.clock.believes(t) {
		ix.unbelieved++
		return
	}
	ix.clock.Witness(t)
}

func (ix *index) unlist(e *Entry) {
	e.listed = false
	if ix.globals != nil {
		ix.globals(e)
		return
	}
	switch e.Kind() {
	case KindEndpoint:
		ix.mark(e.svc)
		e.svc.countFamilies(e, -1)
		if e.bar != BarNone {
			ix.unbar(e)
		}
		if e.hidden {
			e.svc.hidden--
		} else {
			ix.take(e)
		}
	case KindVIP:
		c, _ := ParseVIPClaim(e.Key(), e.Body())
		ix.svc(c.Service).claims--
		ix.claims = true
		ix.vips.remove(c, ix.markVIP)
	case KindSettings:
		s := ix.svc(e.Key())
		s.settings = slices.DeleteFunc(s.settings, func(o *Entry) bool { return o == e })
		ix.claims = true
		ix.mark(s)
	}
}

// take notes that e is not to be shown any more.
func (ix *index) take(e *Entry) {
	switch {
	case e.shown:
		e.svc.taken = append(e.svc.taken, e)
	case e.row > 0: // back to the one that e was to replace
		ix.addrs.rows[e.row].row, e.row = e.row, 0
	}
}

// reclass looks again at an endpoint whose owner's liveness changed (S9).
func (ix *index) reclass(e *Entry) {
	if !e.listed || e.svc == nil {
		return
	}
	s := e.svc
	s.resort = true
	ix.mark(s)
	hide := e.effective() == Hidden
	switch {
	case hide && !e.hidden:
		s.hidden++
		ix.take(e)
	case !hide && e.hidden:
		s.hidden--
		if !e.shown {
			s.added = append(s.added, e)
		}
	}
	e.hidden = hide
}

// effective returns the settings with the highest Lamport time, then the
// larger body: the same on every node with the same claims (S8).
func (s *svc) effective() (c SettingsClaim, body string) {
	var best *Entry
	var bestClaim SettingsClaim
	for _, e := range s.settings {
		if best != nil && e.Body() == best.Body() {
			continue // the usual case: all carry the same
		}
		c, _ := ParseSettings(e.Body())
		if best == nil || c.Lamport > bestClaim.Lamport || c.Lamport == bestClaim.Lamport && e.Body() > best.Body() {
			best, bestClaim = e, c
		}
	}
	if best == nil {
		return SettingsClaim{}, ""
	}
	return bestClaim, best.Body()
}
