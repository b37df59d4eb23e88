package state

import (
	"net/netip"
	"slices"
	"time"
)

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
		if len(ix.dirty) == 0 && len(ix.nameOps) == 0 {
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
	if len(ix.nameOps) > 0 {
		ix.changed = append(ix.changed, "") // names that were held back: of services that do not change now
	}
	for _, s := range todo {
		if wait := ix.held(s, now); wait > 0 {
			ix.dirty = append(ix.dirty, s)
			if again == 0 || wait < again {
				again = wait
			}
			continue
		}
		s.dirty, s.urgent, s.last = false, false, max(now, 1)
		ix.build(s)
	}
	if wait := ix.rename(now); wait > 0 && (again == 0 || wait < again) {
		again = wait
	}
	ix.addrs.remove(ix.removed)
	ix.freeIDs()
	ix.notify(ix.changed...)
	clear(ix.removed)
	ix.removed, ix.changed = ix.removed[:0], ix.changed[:0]
	return again
}

// held returns how long the service is to be held back: also with an urgent
// change where there are a thousand different claims for it, for each publication
// compares them all, and they are no honest node's.
func (ix *index) held(s *svc, now time.Duration) time.Duration {
	if claims := len(ix.vips.bySvc[s.name]); claims >= bigService {
		return max(s.last+bigPeriod*time.Duration(claims/bigService)-now, 0)
	}
	if old := s.view.Load(); s.urgent || old == nil || max(len(old.Members)+len(s.added), len(s.settings)) < bigService {
		return 0
	}
	return max(s.last+bigPeriod-now, 0)
}

// build replaces the published view of one service.
func (ix *index) build(s *svc) {
	old := s.view.Load()
	if old == nil {
		old = &Service{Name: s.name}
	}
	added, taken := s.take()
	added, taken = ix.settleIDs(s, added, taken)
	n := &Service{Network: ix.network, Name: s.name}
	s.merge(n, old, added, taken)
	for _, e := range added {
		s.tally(e, 1)
		ix.nameTask(e)
	}
	for _, e := range taken {
		s.tally(e, -1)
		ix.nameTask(e)
	}
	ix.removed = append(ix.removed, taken...)
	s.declare(n, old)
	ix.nameService(s.name, old.Aliases, n.Aliases)
	ix.changed = append(ix.changed, s.name)
	if len(n.Members) == 0 && s.hidden == 0 && s.claims == 0 && len(s.settings) == 0 {
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

// take returns what is to be shown and what not any more, and forgets it.
func (s *svc) take() (added, taken []*Entry) {
	added = slices.DeleteFunc(s.added, func(e *Entry) bool {
		if !e.listed || e.hidden || e.shown {
			return true
		}
		e.shown, e.as = true, e.effective()
		return false
	})
	taken = slices.DeleteFunc(s.taken, func(e *Entry) bool {
		if e.listed && !e.hidden || !e.shown {
			return true
		}
		e.shown = false
		return false
	})
	s.added, s.taken = nil, nil
	return added, taken
}

// merge fills n with old's members, with added and without taken.
func (s *svc) merge(n, old *Service, added, taken []*Entry) {
	was := old.Members
	n.Count = old.Count
	n.Members = make([]*Entry, 0, len(was)+len(added)-len(taken))
	if s.resort {
		s.resort, n.Count = false, [Hidden]int{}
		for _, es := range [][]*Entry{was, added} {
			for _, e := range es {
				if e.shown {
					e.as = e.effective()
					n.Count[e.as]++
					n.Members = append(n.Members, e)
				}
			}
		}
		slices.SortFunc(n.Members, compareMember)
		return
	}
	slices.SortFunc(added, compareMember)
	slices.SortFunc(taken, compareMember)
	for len(added)+len(taken) > 0 {
		order := 0 // an update: one goes, one comes, at the same place
		switch {
		case len(added) == 0:
			order = 1
		case len(taken) == 0:
			order = -1
		default:
			order = compareMember(added[0], taken[0])
		}
		var e *Entry
		if order <= 0 {
			e, added = added[0], added[1:]
			n.Count[e.as]++
		}
		at := e
		if order >= 0 {
			at, taken = taken[0], taken[1:]
			n.Count[at.as]--
		}
		i, _ := slices.BinarySearchFunc(was, at, compareMember)
		n.Members = append(n.Members, was[:i]...)
		if e != nil {
			n.Members = append(n.Members, e)
		}
		if was = was[i:]; order >= 0 {
			was = was[1:]
		}
	}
	n.Members = append(n.Members, was...)
}

// address fills the VIPs of a service from the claims (V3, V5, V7), but for those
// of a family in which it has no task (V12).
func (ix *index) address(n *Service, s *svc) {
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
	case a.Canonical.Service == "" && len(a.Losing) > 0 && len(n.Members) > 0: // else nobody is there who would claim
		n.Conflict = "its address belongs to an older or pinned service; a new one is being claimed"
	case has4 && !a.Canonical.VIP4.IsValid() && ix.vips.full():
		n.Conflict = "no IPv4 VIP: the pool " + ix.vips.def.Subnet4.String() + " is exhausted; answered like dnsrr"
	}
}

// families reports of which families the service has tasks, those of dead owners
// included: a host that is away for a moment must not change what kind of
// addresses a name has, which clients remember for long. Without any task both are
// true: nobody says, and the service keeps what it has (R4).
func (s *svc) families() (has4, has6 bool) {
	none := s.in4 == 0 && s.in6 == 0
	return none || s.in4 > 0, none || s.in6 > 0
}

// countFamilies counts the addresses of an endpoint in, or out with by = -1.
func (s *svc) countFamilies(e *Entry, by int32) {
	if e.ip4 != [4]byte{} {
		s.in4 += by
	}
	if e.has&hasIP6 != 0 {
		s.in6 += by
	}
}
