package state

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// bigService is from how many members on a service is published at a bounded
// rate, and bigPeriod that rate's period (S14): each publication copies the
// member list.
const (
	bigService = 1000
	bigPeriod  = 100 * time.Millisecond
)

// publish makes the marked services visible and returns how long until the
// ones that were held back are due; 0 if there are none. What is new can be
// found before what is old cannot, so that nothing that only moved is missing
// in between.
func (ix *index) publish(now time.Duration) (again time.Duration) {
	for range 8 { // a second time only where an id changed hands
		if len(ix.dirty) == 0 {
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
	for _, s := range todo {
		if wait := s.held(now); wait > 0 {
			ix.dirty = append(ix.dirty, s)
			if again == 0 || wait < again {
				again = wait
			}
			continue
		}
		s.dirty, s.urgent, s.last = false, false, max(now, 1)
		ix.build(s)
	}
	ix.rename()
	ix.addrs.remove(ix.removed)
	ix.freeIDs()
	ix.notify(ix.changed...)
	clear(ix.removed)
	ix.removed, ix.changed = ix.removed[:0], ix.changed[:0]
	return again
}

// held returns how long the service is to be held back.
func (s *svc) held(now time.Duration) time.Duration {
	if old := s.view.Load(); s.urgent || old == nil || len(old.Members)+len(s.added) < bigService {
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
	n.Ports, s.ports = tallied(old.Ports, s.ports)
	n.Aliases, s.aliases = tallied(old.Aliases, s.aliases)
	ix.nameService(s.name, old.Aliases, n.Aliases)
	ix.changed = append(ix.changed, s.name)
	if len(n.Members) == 0 && s.hidden == 0 && s.claims == 0 && len(s.settings) == 0 {
		ix.addrs.putVIP(n, old)
		ix.services.Delete(s.name)
		return
	}
	settings, _ := s.effective()
	n.Settings = settings.Settings
	ix.address(n)
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

// tally counts how many members state a value.
type tally[T any] struct {
	value T
	n     int
}

// tally counts the ports and aliases of a member in, or out with by = -1.
func (s *svc) tally(e *Entry, by int) {
	if e.has&(hasPorts|hasAliases) == 0 {
		return
	}
	_ = eachField(e.Body(), func(tag byte, v string) error {
		switch tag {
		case tagPort:
			p, _ := fieldPort(v)
			if !p.Proto.known() {
				return nil
			}
			s.ports = count(s.ports, p, by, comparePort, clonePort)
		case tagAlias:
			if CheckTaskName(v) != nil {
				return nil
			}
			s.aliases = count(s.aliases, v, by, strings.Compare, strings.Clone)
		}
		return nil
	})
}

func comparePort(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Number, b.Number), strings.Compare(a.Name, b.Name))
}

func clonePort(p Port) Port {
	p.Name = strings.Clone(p.Name)
	return p
}

// count keeps ts sorted. A value with none left stays until tallied sees it.
func count[T any](ts []tally[T], v T, by int, compare func(a, b T) int, clone func(T) T) []tally[T] {
	i, ok := slices.BinarySearchFunc(ts, v, func(t tally[T], v T) int { return compare(t.value, v) })
	if !ok {
		ts = slices.Insert(ts, i, tally[T]{value: clone(v)})
	}
	ts[i].n += by
	return ts
}

// tallied returns the values that somebody states: old itself if it is these.
func tallied[T comparable](old []T, ts []tally[T]) ([]T, []tally[T]) {
	ts = slices.DeleteFunc(ts, func(t tally[T]) bool { return t.n <= 0 })
	if slices.EqualFunc(old, ts, func(v T, t tally[T]) bool { return v == t.value }) {
		return old, ts
	}
	vs := make([]T, len(ts))
	for i := range ts {
		vs[i] = ts[i].value
	}
	return vs, ts
}

// address fills the VIPs of a service from the claims (V3, V5, V7).
func (ix *index) address(n *Service) {
	if n.Mode != ModeVIP {
		return
	}
	a := ix.vips.assign(n.Name)
	n.VIP4, n.VIP6 = a.Canonical.VIP4, a.Canonical.VIP6
	for _, c := range a.Others {
		for _, addr := range c.addrs() {
			if addr.IsValid() && addr != n.VIP4 && addr != n.VIP6 && !slices.Contains(n.OtherVIPs, addr) {
				n.OtherVIPs = append(n.OtherVIPs, addr)
			}
		}
	}
	slices.SortFunc(n.OtherVIPs, netip.Addr.Compare)
	switch {
	case !n.VIP4.IsValid() && !n.VIP6.IsValid() && len(a.Losing) > 0:
		n.Conflict = "its address belongs to an older or pinned service; a new one is being claimed"
	case !n.VIP4.IsValid() && ix.vips.full():
		n.Conflict = "no IPv4 VIP: the pool " + ix.vips.def.Subnet4.String() + " is exhausted; answered like dnsrr"
	}
}

// nameSet is what one alias, host name or container name stands for.
type nameSet struct {
	services  []string // by alias, sorted
	endpoints []*Entry // by host or container name, sorted by id
}

// nameOp is one change of a nameSet: of a service that has the alias, or has it
// no more, or of an endpoint that is shown by it, or no more.
type nameOp struct {
	name    string
	service string
	add     bool
	entry   *Entry
}

// nameTask notes that the container name and the host name of e changed hands.
func (ix *index) nameTask(e *Entry) {
	if e.has&hasNames == 0 {
		return
	}
	_ = eachField(e.Body(), func(tag byte, v string) error {
		if (tag == tagName || tag == tagHostname) && CheckTaskName(v) == nil {
			ix.nameOps = append(ix.nameOps, nameOp{name: v, entry: e})
		}
		return nil
	})
}

// nameService notes the aliases that a service lost and got.
func (ix *index) nameService(service string, old, cur []string) {
	if len(old) == len(cur) && (len(old) == 0 || &old[0] == &cur[0]) {
		return
	}
	for _, list := range []struct {
		these, others []string
		add           bool
	}{{old, cur, false}, {cur, old, true}} {
		for _, a := range list.these {
			if _, both := slices.BinarySearch(list.others, a); !both {
				ix.nameOps = append(ix.nameOps, nameOp{name: a, service: service, add: list.add})
			}
		}
	}
}

// rename applies the changes of names, each name in one step.
func (ix *index) rename() {
	ops := ix.nameOps
	slices.SortStableFunc(ops, func(a, b nameOp) int { return strings.Compare(a.name, b.name) })
	for len(ops) > 0 {
		n := 1
		for n < len(ops) && ops[n].name == ops[0].name {
			n++
		}
		old, _ := ix.names.Load(ops[0].name)
		if set := old.with(ops[:n]); set == nil {
			ix.names.Delete(ops[0].name)
		} else {
			ix.names.Store(strings.Clone(ops[0].name), set)
		}
		ops = ops[n:]
	}
	clear(ix.nameOps)
	ix.nameOps = ix.nameOps[:0]
}

// with returns the set after the changes, or nil if it is empty.
func (n *nameSet) with(ops []nameOp) *nameSet {
	next := &nameSet{}
	if n != nil {
		next.services = slices.Clone(n.services)
		for _, e := range n.endpoints {
			if e.shown {
				next.endpoints = append(next.endpoints, e)
			}
		}
	}
	for _, op := range ops {
		switch {
		case op.entry != nil && op.entry.shown:
			next.endpoints = append(next.endpoints, op.entry)
		case op.entry != nil:
		case op.add:
			next.services = append(next.services, op.service)
		default:
			next.services = slices.DeleteFunc(next.services, func(s string) bool { return s == op.service })
		}
	}
	if len(next.services)+len(next.endpoints) == 0 {
		return nil
	}
	slices.Sort(next.services)
	slices.SortFunc(next.endpoints, compareID)
	next.endpoints = slices.Compact(next.endpoints)
	return next
}
