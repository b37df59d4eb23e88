package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// This file owns which endpoints are carried and not shown (S18), and which of two tasks
// with one id is shown.

// Bar says why an endpoint that its owner states is carried, but not shown on
// this node (S18). The zero Bar: it is shown, if its owner lives.
type Bar uint8

// The reasons.
const (
	BarNone     Bar = iota
	BarLoopback     // its address is every host's own
	BarPool         // its address is in the VIP pool of a network that this node takes part in
	BarTwin         // another owner has a task with the same id
	BarPorts        // all its ports are of protocols that this version does not know
)

// String returns the reason in one word, for metrics.
func (b Bar) String() string {
	return [...]string{"none", "loopback", "pool", "id", "ports"}[min(b, BarPorts)]
}

// Barred is an endpoint that is carried, but not shown.
type Barred struct {
	Endpoint *Entry
	Bar      Bar
	Reason   string // for people
}

// barIndex is what the table's goroutine knows of endpoints that are not to be
// shown for a reason of their own.
type barIndex struct {
	self     NodeID
	loopback bool               // loopback addresses of tasks are shown
	pools    *poolSet           // the store's
	barred   map[*slot]struct{} // slots with a bar
	twins    map[string][]*slot // of these, by id, those that lost it to another owner
}

func newBarIndex() barIndex {
	return barIndex{barred: map[*slot]struct{}{}, twins: map[string][]*slot{}}
}

// reason returns why an endpoint is not to be shown, by its ports and addresses.
func (x *barIndex) reason(e *Entry) Bar {
	if e.has&onlyStrange != 0 {
		return BarPorts
	}
	for _, a := range e.addrs() {
		switch {
		case !a.IsValid():
		case !x.loopback && a.IsLoopback():
			return BarLoopback
		case e.stream.owner == x.self:
			// What this host has itself outranks a pool: the pool is not programmed here.
		case x.pools.contains(a):
			return BarPool
		}
	}
	return BarNone
}

// set bars the current endpoint of a slot of a service. No client gets to it, so it
// gives its service no address of its family.
func (x *barIndex) set(s *serviceState, sl *slot, b Bar) {
	sl.bar = b
	s.countFamilies(sl.current, -1)
	x.barred[sl] = struct{}{}
	if b == BarTwin {
		id := sl.current.Key()
		x.twins[id] = append(x.twins[id], sl)
	}
}

// clear is the inverse of set, for the endpoint e that was barred.
func (x *barIndex) clear(s *serviceState, sl *slot, e *Entry) {
	if sl.bar == BarTwin {
		id := e.Key()
		if ts := slices.DeleteFunc(x.twins[id], func(o *slot) bool { return o == sl }); len(ts) > 0 {
			x.twins[id] = ts
		} else {
			delete(x.twins, id)
		}
	}
	delete(x.barred, sl)
	sl.bar = BarNone
	s.countFamilies(e, 1)
}

// Barred returns the endpoints that are carried and not shown although their
// owner lives, by service, id and owner.
func (t *Table) Barred() []Barred {
	out := make([]Barred, 0, len(t.index.bars.barred))
	for sl := range t.index.bars.barred {
		if sl.current.stream.status != Dead {
			out = append(out, Barred{Endpoint: sl.current, Bar: sl.bar, Reason: t.index.whyBarred(sl)})
		}
	}
	slices.SortFunc(out, func(a, b Barred) int {
		return cmp.Or(strings.Compare(a.Endpoint.Group(), b.Endpoint.Group()), compareID(a.Endpoint, b.Endpoint))
	})
	return out
}

// whyBarred says to people why the endpoint of a slot is not shown.
func (ix *index) whyBarred(sl *slot) string {
	e := sl.current
	switch sl.bar {
	case BarLoopback:
		return "its address is a loopback address, which is every host's own; allow-loopback-tasks allows them for trials"
	case BarPool:
		for _, a := range e.addrs() {
			if p, ok := ix.bars.pools.find(a); ok {
				return fmt.Sprintf("its address %s is in a VIP pool, %s", a, p)
			}
		}
		return "its address is in a VIP pool"
	case BarTwin:
		if o := ix.addrs.byID(e.Key(), func(o *Entry) bool { return o.Key() == e.Key() }); o != nil {
			return fmt.Sprintf("node %s has a task with the same id, which is served instead", o.Owner())
		}
		return "another node has a task with the same id"
	case BarPorts:
		return "its ports are all of protocols that this version of meshd does not know; without them it would get every " +
			"port of its service's address"
	}
	return ""
}

// recheckBar looks again at the addresses of an endpoint, after the pools changed.
func (ix *index) recheckBar(sl *slot) {
	if !ix.isEndpoint(sl) {
		return
	}
	b := ix.bars.reason(sl.current)
	if b == sl.bar || b == BarNone && sl.bar == BarTwin {
		return
	}
	s := ix.service(sl.current.Group())
	if sl.bar != BarNone {
		ix.bars.clear(s, sl, sl.current)
	}
	if b != BarNone {
		ix.bars.set(s, sl, b)
	}
	ix.updateClass(sl)
}

// loseID bars the endpoint that lost its id to another owner's, and hides it if
// it was shown.
func (ix *index) loseID(sl *slot) {
	ix.regain = true
	ix.bars.set(ix.service(sl.current.Group()), sl, BarTwin)
	ix.updateClass(sl)
}

// freeID makes the tasks that lost an id compete for it again: the one that had
// it is gone.
func (ix *index) freeID(id string) {
	for _, sl := range slices.Clone(ix.bars.twins[id]) {
		if sl.row > 0 {
			continue // it has just lost it, and is about to go
		}
		ix.regain = true
		ix.bars.clear(ix.service(sl.current.Group()), sl, sl.current)
		ix.updateClass(sl)
	}
}

// freeIDs makes tasks compete for the ids that this publication has freed.
func (ix *index) freeIDs() {
	ix.addrs.look = ix.addrs.look && len(ix.dirty) > 0
	if len(ix.bars.twins) == 0 {
		return
	}
	for _, r := range ix.removed {
		if !r.lost {
			ix.freeID(r.id)
		}
	}
}

// assignIDs makes the endpoints that a service gets known by address and id, and
// leaves out what loses its id to another owner's task. It returns the changes of
// the service that remain.
func (ix *index) assignIDs(s *serviceState, changes []change) []change {
	losers := ix.addrs.put(changes)
	for i := range changes {
		c := &changes[i]
		c.slot.shown = c.now
		if c.cur == nil {
			c.slot.row = 0
		}
		if c.row > 0 {
			ix.removed = append(ix.removed, freedRow{row: c.row, id: c.old.Key()})
		}
	}
	if len(losers) == 0 {
		return changes
	}
	at := make(map[*slot]int, len(changes))
	for i := range changes {
		at[changes[i].slot] = i
	}
	for _, sl := range losers {
		i, here := at[sl]
		switch {
		case sl.bar == BarTwin:
			continue // it lost to another one before
		case !here && sl.current.Group() != s.name:
			ix.loseID(sl)
			continue
		case !here:
			changes = append(changes, change{slot: sl, old: sl.current, was: sl.shown})
			i = len(changes) - 1
		}
		changes[i].cur = nil
		ix.bars.set(s, sl, BarTwin)
		sl.hidden = true
		s.hidden++
		if sl.row > 0 {
			ix.removed = append(ix.removed, freedRow{row: sl.row, id: sl.current.Key(), lost: true})
			sl.row = 0
		}
	}
	return slices.DeleteFunc(changes, func(c change) bool { return c.old == nil && c.cur == nil })
}

// winsID reports which of two owners' tasks with one id is served: the same on
// every node, and no owner's name is better than another's.
func (e *Entry) winsID(o *Entry) bool {
	rank := func(e *Entry) uint64 { return mix64(e.stream.hash ^ idHash(e.Key())) }
	return cmp.Or(cmp.Compare(rank(e), rank(o)), strings.Compare(string(e.Owner()), string(o.Owner()))) < 0
}
