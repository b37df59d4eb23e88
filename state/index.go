package state

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
)

// This file owns what the index of one table knows of each record as it comes and
// goes. What readers see of it changes in publish.go only, step by step.

// index is the readers' side of one table: what View promises. What is reached
// through services, names and lookups is immutable and replaced.
type index struct {
	// What readers see.
	network   string
	services  *xsync.Map[string, *serviceState] // readers look at serviceState.view only
	nameIndex                                   // by alias, host name or container name
	addrs     addrIndex                         // by address and by id
	def       atomic.Pointer[NetworkDef]        // never nil
	synced    atomic.Bool                       // see View.Synced
	changeFeed

	// What the table's goroutine keeps.
	claimIndex
	bars    barIndex                    // what is not to be shown (S18)
	globals func(e *Entry, listed bool) // of the global scope: called for its records; nil elsewhere

	// What is to be published, and who hears that there is something.
	observer tableObserver
	dirty    []*serviceState // services that may differ from their view
	regain   bool            // an id changed hands in this publication

	// Scratch of one publication.
	changes []change   // of one service; empty in between
	removed []freedRow // rows that nothing has taken over
	changed []string   // names of services
}

// tableObserver hears that a table has something to do for its store.
type tableObserver struct {
	unpublished func() // there is something to publish
	claims      func() // claims, settings or the definition changed
}

// serviceState is the writer's side of one service. What happens to its endpoints
// is shown to readers by the next publication, and only then: members, names and
// addresses change together (S4).
type serviceState struct {
	view atomic.Pointer[Service] // published; nil: none. All else belongs to the table's goroutine
	name string                  // set once

	// What the records say.
	settings []*Entry // KindSettings of every carrier
	claims   int32    // KindVIP records
	hidden   int32    // endpoints that are not to be shown: their owner is dead, or they are barred
	in4, in6 int32    // endpoints with an address of the family, those of dead owners included, barred ones not

	// What the published members declare.
	ports   []tally[Port]   // by value; not counted if crowded
	aliases []tally[string] // by value; not counted if crowded
	crowded bool            // too many ports or aliases to be counted: see survey

	// When it is published.
	queue  []*slot       // endpoints that may differ from what is published
	dirty  bool          // in index.dirty
	urgent bool          // an address changed: not to be held back (V5)
	last   time.Duration // of the last publication; monotonic
}

func newIndex(network string, clock *belief) *index {
	ix := &index{
		network: network, services: xsync.NewMap[string, *serviceState](),
		nameIndex:  nameIndex{names: xsync.NewMap[string, *nameSet]()},
		changeFeed: newChangeFeed(), claimIndex: newClaimIndex(network, clock), bars: newBarIndex(),
		observer: tableObserver{func() {}, func() {}},
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

// setSynced records the first full exchange and tells subscribers.
func (ix *index) setSynced() {
	if !ix.synced.Swap(true) {
		ix.markClaims() // claims may be made now
		ix.notify("")
	}
}

// setDef installs the effective definition; every VIP is assigned anew.
func (ix *index) setDef(d NetworkDef) {
	if *ix.def.Load() == d {
		return
	}
	ix.def.Store(&d)
	ix.vips.setDef(d)
	ix.markClaims()
	for _, s := range ix.services.All() {
		s.urgent = true
		ix.mark(s)
	}
	ix.notify("")
}

// service returns the writer's side of a service, made if there is none.
func (ix *index) service(name string) *serviceState {
	s, _ := ix.services.Load(name)
	if s == nil {
		s = &serviceState{name: strings.Clone(name)}
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

// mark makes the next publication look at a service: also at one that was held back.
func (ix *index) mark(s *serviceState) {
	if !s.dirty {
		s.dirty = true
		ix.dirty = append(ix.dirty, s)
	}
	ix.observer.unpublished()
}

// markClaims makes whoever carries claims look at them again.
func (ix *index) markClaims() {
	ix.claimsChanged = true
	ix.observer.claims()
}

// markVIP marks a service whose addresses may differ now. They are published at
// once, so that no address is seen at two services (V5).
func (ix *index) markVIP(name string) {
	s := ix.service(name)
	s.urgent = true
	ix.mark(s)
}

// enqueue makes the next publication of a service look at one of its endpoints.
func (ix *index) enqueue(s *serviceState, sl *slot) {
	ix.mark(s)
	if !sl.queued {
		sl.queued = true
		s.queue = append(s.queue, sl)
	}
}

// update takes in that the current entry of a slot has changed, from was; either
// may be nil, not both.
func (ix *index) update(sl *slot, was *Entry) {
	if was != nil && was.poison {
		was = nil
	}
	e := sl.readable()
	switch {
	case was == nil && e == nil:
	case ix.globals != nil:
		ix.updateGlobal(e, was)
	case kindOf(e, was) == KindEndpoint:
		ix.updateEndpoint(sl, e, was)
	default:
		if was != nil {
			ix.unlist(was)
		}
		if e != nil {
			ix.list(e)
		}
	}
}

func kindOf(e, was *Entry) Kind {
	if e == nil {
		return was.Kind()
	}
	return e.Kind()
}

func (ix *index) updateGlobal(e, was *Entry) {
	if was != nil {
		ix.globals(was, false)
	}
	if e != nil {
		ix.globals(e, true)
	}
}

// updateEndpoint is update for endpoints. Both are of one service.
func (ix *index) updateEndpoint(sl *slot, e, was *Entry) {
	any := e
	if any == nil {
		any = was
	}
	s := ix.service(any.Group())
	ix.enqueue(s, sl)
	if was != nil {
		s.countFamilies(was, -1)
		if sl.bar != BarNone {
			ix.bars.clear(s, sl, was)
		}
		if sl.hidden {
			s.hidden--
		}
	}
	sl.hidden = false
	if e == nil {
		return
	}
	s.countFamilies(e, 1)
	if b := ix.bars.reason(e); b != BarNone {
		ix.bars.set(s, sl, b)
	}
	if sl.class() == Hidden {
		sl.hidden = true
		s.hidden++
	}
}

// list takes in a claim or a service's settings; unlist is its inverse.
func (ix *index) list(e *Entry) {
	switch e.Kind() {
	case KindVIP:
		c, _ := ParseVIPClaim(e.Key(), e.Body())
		ix.service(c.Service).claims++
		ix.markClaims()
		ix.witness(c.Birth)
		ix.vips.add(c, e.Body(), ix.markVIP)
	case KindSettings:
		s := ix.service(e.Key())
		s.settings = append(s.settings, e)
		c, _ := ParseSettings(e.Body())
		ix.witness(c.Lamport)
		ix.markClaims()
		ix.mark(s)
	}
}

func (ix *index) unlist(e *Entry) {
	switch e.Kind() {
	case KindVIP:
		c, _ := ParseVIPClaim(e.Key(), e.Body())
		ix.service(c.Service).claims--
		ix.markClaims()
		ix.vips.remove(c, ix.markVIP)
	case KindSettings:
		s := ix.service(e.Key())
		s.settings = slices.DeleteFunc(s.settings, func(o *Entry) bool { return o == e })
		ix.markClaims()
		ix.mark(s)
	}
}

// updateClass looks again at an endpoint whose owner's liveness or whose bar has
// changed (S9).
func (ix *index) updateClass(sl *slot) {
	if !ix.isEndpoint(sl) {
		return
	}
	s := ix.service(sl.current.Group())
	ix.enqueue(s, sl)
	hide := sl.class() == Hidden
	switch {
	case hide && !sl.hidden:
		s.hidden++
	case !hide && sl.hidden:
		s.hidden--
	}
	sl.hidden = hide
}

// isEndpoint reports whether a slot has an endpoint that the index knows.
func (ix *index) isEndpoint(sl *slot) bool {
	e := sl.readable()
	return e != nil && ix.globals == nil && e.Kind() == KindEndpoint
}

// effective returns the settings with the highest Lamport time, then the
// larger body: the same on every node with the same claims (S8).
func (s *serviceState) effective() (c SettingsClaim, body string) {
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
