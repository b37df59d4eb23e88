package state

import (
	"slices"
	"strings"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
)

// This file owns what aliases, host names and container names stand for.

// nameIndex finds services and endpoints by further names. Readers look at names
// only, whose values are immutable; ops belongs to the table's goroutine.
type nameIndex struct {
	names *xsync.Map[string, *nameSet]
	ops   []nameOp // changes that are not published
}

// nameSet is what one alias, host name or container name stands for.
type nameSet struct {
	services  []string      // by alias, sorted
	endpoints []*Entry      // by host or container name, sorted by id
	last      time.Duration // when it was made
}

// nameOp is one change of a nameSet: a service gets the alias or loses it, or an
// endpoint is shown by the name, or no longer.
type nameOp struct {
	name    string
	service string // of an alias
	entry   *Entry // of a host or container name; nil: it is an alias
	add     bool
}

// addTask queues that the container name and the host name of e are added or go.
func (x *nameIndex) addTask(e *Entry, add bool) {
	if e.has&hasNames == 0 {
		return
	}
	_ = eachField(e.Body(), func(tag byte, v string) error {
		if (tag == tagName || tag == tagHostname) && CheckTaskName(v) == nil {
			x.ops = append(x.ops, nameOp{name: v, entry: e, add: add})
		}
		return nil
	})
}

// addService queues the aliases that a service lost and got.
func (x *nameIndex) addService(service string, old, cur []string) {
	if len(old) == len(cur) && (len(old) == 0 || &old[0] == &cur[0]) {
		return
	}
	for _, list := range []struct {
		these, others []string
		add           bool
	}{{old, cur, false}, {cur, old, true}} {
		for _, a := range list.these {
			if _, both := slices.BinarySearch(list.others, a); !both {
				x.ops = append(x.ops, nameOp{name: a, service: service, add: list.add})
			}
		}
	}
}

// publishNames applies the changes of names, each name in one step, and returns how
// long until those are due that were held back: a name that very many have is
// changed at a bounded rate, like a large service (S14).
func (x *nameIndex) publishNames(now time.Duration) (again time.Duration) {
	ops := x.ops
	slices.SortStableFunc(ops, func(a, b nameOp) int { return strings.Compare(a.name, b.name) })
	var held []nameOp
	for len(ops) > 0 {
		n := 1
		for n < len(ops) && ops[n].name == ops[0].name {
			n++
		}
		old, _ := x.names.Load(ops[0].name)
		if wait := old.held(now); wait > 0 {
			held = append(held, ops[:n]...)
			if again == 0 || wait < again {
				again = wait
			}
		} else if set := old.with(ops[:n], now); set == nil {
			x.names.Delete(ops[0].name)
		} else {
			x.names.Store(strings.Clone(ops[0].name), set)
		}
		ops = ops[n:]
	}
	clear(x.ops)
	x.ops = append(x.ops[:0], held...)
	return again
}

// held returns how long the changes of a name are to be held back.
func (n *nameSet) held(now time.Duration) time.Duration {
	if n == nil || len(n.services)+len(n.endpoints) < bigService {
		return 0
	}
	return max(n.last+bigPeriod-now, 0)
}

// with returns the set after the changes, or nil if it is empty.
func (n *nameSet) with(ops []nameOp, now time.Duration) *nameSet {
	if n == nil {
		n = &nameSet{}
	}
	has := map[string]bool{}   // which services have the name in the end
	shown := map[*Entry]bool{} // which endpoints are shown by it in the end
	for _, op := range ops {
		if op.entry == nil {
			has[op.service] = op.add
		} else {
			shown[op.entry] = op.add
		}
	}
	next := &nameSet{
		services:  make([]string, 0, len(n.services)+len(has)),
		endpoints: make([]*Entry, 0, len(n.endpoints)+len(shown)), last: max(now, 1),
	}
	for _, s := range n.services {
		if _, changed := has[s]; !changed {
			next.services = append(next.services, s)
		}
	}
	for s, yes := range has {
		if yes {
			next.services = append(next.services, s)
		}
	}
	for _, e := range n.endpoints {
		if _, changed := shown[e]; !changed {
			next.endpoints = append(next.endpoints, e)
		}
	}
	for e, yes := range shown {
		if yes {
			next.endpoints = append(next.endpoints, e)
		}
	}
	if len(next.services)+len(next.endpoints) == 0 {
		return nil
	}
	slices.Sort(next.services)
	slices.SortFunc(next.endpoints, compareID)
	return next
}
