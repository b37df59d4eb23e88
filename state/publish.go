package state

import (
	"net/netip"
	"slices"
	"time"
)

// This file owns how the changes of a table become visible to readers, in steps that are
// each true (S4, S14).

// bigService is from how many members on a service is published at a bounded
// rate, and bigPeriod that rate's period (S14): each publication copies the
// member list.
const (
	bigService = 1000
	bigPeriod  = 100 * time.Millisecond
)

// maxOtherVIPs is how many addresses a service has besides its canonical ones. In
// a move it is one of each family for each half that had its own; who claims
// addresses for a service by the thousand must not have each programmed on every
// host.
const maxOtherVIPs = 8

// publish makes the marked services visible and returns how long until the
// ones that were held back are due; 0 if there are none. What is new can be
// found before what is old cannot, so that nothing that only moved is missing
// in between.
func (ix *index) publish(now time.Duration) (again time.Duration) {
	for range 8 { // a second time only where an id changed hands
		if len(ix.dirty) == 0 && len(ix.ops) == 0 {
			return again
		}
		ix.regain = false
		if again = ix.publishOnce(now); !ix.regain {
			return again
		}
	}
	return time.Millisecond
}

func (ix *index) publishOnce(now time.Duration) (again time.Duration) {
	todo := ix.dirty
	ix.dirty = nil
	if len(ix.ops) > 0 {
		ix.changed = append(ix.changed, "") // names that were held back: of services that do not change now
	}
	for _, s := range todo {
		if wait := ix.heldBack(s, now); wait > 0 {
			ix.dirty = append(ix.dirty, s)
			again = sooner(again, wait)
			continue
		}
		s.dirty, s.urgent, s.last = false, false, max(now, 1)
		ix.build(s)
	}
	again = sooner(again, ix.publishNames(now))
	ix.addrs.remove(ix.removed)
	ix.freeIDs()
	ix.notify(ix.changed...)
	clear(ix.removed)
	ix.removed, ix.changed = ix.removed[:0], ix.changed[:0]
	return again
}

// sooner returns the shorter of two times to wait; 0 is no time at all.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// heldBack returns how long the publication of a service waits; 0: it does not.
// With a thousand different claims, which no honest nodes state, an urgent change
// waits too, since each publication compares all claims.
func (ix *index) heldBack(s *serviceState, now time.Duration) time.Duration {
	if claims := len(ix.vips.bySvc[s.name]); claims >= bigService {
		return max(s.last+bigPeriod*time.Duration(claims/bigService)-now, 0)
	}
	if old := s.view.Load(); s.urgent || old == nil || !s.big(old) {
		return 0
	}
	return max(s.last+bigPeriod-now, 0)
}

// big reports whether a service has so many members, those that come included, or
// so many carriers of settings, that it is published at a bounded rate.
func (s *serviceState) big(old *Service) bool {
	if old.Members.Len() >= bigService || len(s.settings) >= bigService {
		return true
	}
	coming := 0
	if old.Members.Len()+len(s.queue) >= bigService {
		for _, sl := range s.queue {
			if sl.readable() != nil && !sl.hidden {
				coming++
			}
		}
	}
	return old.Members.Len()+coming >= bigService
}

// change is what a publication does to one endpoint of a service.
type change struct {
	slot     *slot
	old, cur *Entry // the published endpoint before and after; nil: none
	was, now Class  // their classes
	row      uint32 // of old; 0 once something has taken it over
}

// smallQueue is up to which size a service keeps the memory of its queue, and many
// times as much an index that of its scratch.
const smallQueue = 8

// takeQueue returns what the publication of a service changes, and forgets what was
// queued.
func (ix *index) takeQueue(s *serviceState) []change {
	changes := ix.changes[:0]
	for _, sl := range s.queue {
		sl.queued = false
		c := change{slot: sl, old: ix.addrs.rows[sl.row], was: sl.shown, row: sl.row}
		if e := sl.readable(); e != nil && !sl.hidden {
			c.cur, c.now = e, sl.class()
		}
		if c.old != c.cur || c.old != nil && c.was != c.now {
			changes = append(changes, c)
		}
	}
	clear(s.queue)
	if s.queue = s.queue[:0]; cap(s.queue) > smallQueue {
		s.queue = nil
	}
	return changes
}

// build replaces the published view of one service.
func (ix *index) build(s *serviceState) {
	old := s.view.Load()
	if old == nil {
		old = &Service{Name: s.name}
	}
	changes := ix.assignIDs(s, ix.takeQueue(s))
	n := &Service{Network: ix.network, Name: s.name}
	n.takeMembers(old, changes)
	for i := range changes {
		ix.countDeclared(s, &changes[i])
	}
	ix.keepScratch(changes)
	s.declare(n, old)
	ix.addService(s.name, old.Aliases, n.Aliases)
	ix.changed = append(ix.changed, s.name)
	if n.Members.Len() == 0 && s.hidden == 0 && s.claims == 0 && len(s.settings) == 0 {
		ix.addrs.putVIP(n, old)
		ix.services.Delete(s.name)
		return
	}
	settings, _ := s.effective()
	n.Settings = settings.Settings
	ix.address(n, s)
	ix.addrs.putVIP(n, old)
	s.view.Store(n)
}

// keepScratch keeps the memory of changes for the next service.
func (ix *index) keepScratch(changes []change) {
	if cap(changes) > 256*smallQueue {
		changes = nil
	}
	clear(changes)
	ix.changes = changes[:0]
}

// countDeclared counts what the endpoints of a change declare in and out.
func (ix *index) countDeclared(s *serviceState, c *change) {
	if c.old == c.cur {
		return // only its class changed
	}
	same := c.old != nil && c.cur != nil && c.cur.declaresAs(c.old)
	if c.cur != nil {
		if !same {
			s.tally(c.cur, 1)
		}
		ix.addTask(c.cur, true)
	}
	if c.old != nil {
		if !same {
			s.tally(c.old, -1)
		}
		ix.addTask(c.old, false)
	}
}

// address fills the VIPs of a service from the claims (V3, V5, V7), but for those
// of a family in which it has no task (V12).
func (ix *index) address(n *Service, s *serviceState) {
	if n.Mode != ModeVIP {
		return
	}
	has4, has6 := s.families()
	of := func(a netip.Addr) bool { return a.Is4() && has4 || a.Is6() && has6 }
	a := ix.vips.assign(n.Name)
	n.VIP4, n.VIP6 = a.Canonical.VIP4, a.Canonical.VIP6
	if !has4 {
		n.VIP4 = netip.Addr{}
	}
	if !has6 {
		n.VIP6 = netip.Addr{}
	}
	for _, c := range a.Others {
		for _, addr := range c.addrs() {
			if of(addr) && addr != n.VIP4 && addr != n.VIP6 && len(n.OtherVIPs) < maxOtherVIPs &&
				!slices.Contains(n.OtherVIPs, addr) {
				n.OtherVIPs = append(n.OtherVIPs, addr)
			}
		}
	}
	slices.SortFunc(n.OtherVIPs, netip.Addr.Compare)
	switch {
	case a.Canonical.Service == "" && len(a.Losing) > 0 && n.Members.Len() > 0: // without a task no node would claim
		n.Conflict = "its address belongs to an older or pinned service; a new one is being claimed"
	case has4 && !a.Canonical.VIP4.IsValid() && ix.vips.full():
		n.Conflict = "no IPv4 VIP: the pool " + ix.vips.def.Subnet4.String() + " is exhausted; answered like dnsrr"
	}
}

// families reports the families in which the service has tasks. Tasks of dead owners
// count: a host that is away for a moment must not change what kind of addresses a
// name has, since clients remember that for long. Without any task both are true, and
// the service keeps what it has (R4).
func (s *serviceState) families() (has4, has6 bool) {
	none := s.in4 == 0 && s.in6 == 0
	return none || s.in4 > 0, none || s.in6 > 0
}

// countFamilies counts the addresses of an endpoint in, or out with by = -1.
func (s *serviceState) countFamilies(e *Entry, by int32) {
	if e.ip4 != [4]byte{} {
		s.in4 += by
	}
	if e.has&hasIP6 != 0 {
		s.in6 += by
	}
}
