package state

import (
	"slices"
	"strings"
	"time"
)

// This file owns which tables of a store have anything to do, and which tables an owner
// has to do with: a step looks at those, however many networks the node takes part in.

// worklist is the tables of a store in which something has changed.
type worklist struct {
	unpublished []*Table // those with changes that readers do not see yet
	claims      []*Table // those whose claims changed since TakeClaims
}

// tableWork is where one table stands in the worklist of its store.
type tableWork struct {
	unpublished, claims bool          // it is in the list
	heldUntil           time.Duration // what is unpublished is held back until then (S14); 0: it is not
}

// publishSoon makes the next publication look at a table.
func (w *worklist) publishSoon(t *Table) {
	if t.work.heldUntil = 0; !t.work.unpublished {
		t.work.unpublished = true
		w.unpublished = append(w.unpublished, t)
	}
}

// claimsChanged makes the next TakeClaims return a table.
func (w *worklist) claimsChanged(t *Table) {
	if !t.work.claims {
		t.work.claims = true
		w.claims = append(w.claims, t)
	}
}

// publish makes what changed visible and returns how long until the tables are due
// that were held back; 0: none was.
func (w *worklist) publish(now time.Duration) (again time.Duration) {
	todo := w.unpublished
	var held []*Table
	w.unpublished = nil
	for _, t := range todo {
		if t.work.heldUntil <= now {
			t.work.unpublished, t.work.heldUntil = false, 0
			wait := t.Publish(now)
			if wait == 0 {
				continue
			}
			if !t.work.unpublished {
				held = append(held, t)
			}
			t.work.unpublished, t.work.heldUntil = true, now+wait
		} else {
			held = append(held, t)
		}
		again = sooner(again, t.work.heldUntil-now)
	}
	if w.unpublished = append(w.unpublished, held...); len(w.unpublished) == 0 {
		w.unpublished = todo[:0]
	}
	return again
}

// TakeClaims returns the tables in which claims, settings or the definition changed
// since the last call, sorted by name: whoever carries claims should look at them again
// (V2).
func (s *Store) TakeClaims() []*Table {
	if len(s.work.claims) == 0 {
		return nil
	}
	ts := s.work.claims
	s.work.claims = nil
	for _, t := range ts {
		t.work.claims = false
	}
	ts = slices.DeleteFunc(ts, func(t *Table) bool { return !t.TakeClaims() })
	slices.SortFunc(ts, func(a, b *Table) int { return strings.Compare(a.network, b.network) })
	return ts
}

// ownerTables is the tables in which each owner has a stream.
type ownerTables map[NodeID][]*Table

// TablesOf returns the tables in which an owner has a stream, in no order. The slice is
// the caller's.
func (w ownerTables) TablesOf(o NodeID) []*Table { return slices.Clone(w[o]) }

// setStream records whether an owner has a stream in a table.
func (w ownerTables) setStream(o NodeID, t *Table, yes bool) {
	ts := w[o]
	i := slices.Index(ts, t)
	switch {
	case yes && i < 0:
		w[o] = append(ts, t)
	case !yes && i >= 0 && len(ts) == 1:
		delete(w, o)
	case !yes && i >= 0:
		last := len(ts) - 1
		ts[i], ts[last] = ts[last], nil
		w[o] = ts[:last]
	}
}
