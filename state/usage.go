package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// This file owns the counts of what is held, and what of it people see.

// usage counts what is held: of a stream, a table or a store.
type usage struct {
	records int // live ones and tombstones
	bytes   int // their text
	staged  int // bytes of deltas that are not complete
}

func (u *usage) add(o usage, by int) {
	u.records += by * o.records
	u.bytes += by * o.bytes
	u.staged += by * o.staged
}

// Full says which bounds of the store are reached to four fifths or more, for
// people; empty: none.
func (s *Store) Full() string {
	var out []string
	check := func(what string, have, limit int) {
		if have >= limit/5*4 && limit > 0 {
			out = append(out, fmt.Sprintf("%s: %d of %d", what, have, limit))
		}
	}
	l := &s.limits
	for _, t := range s.Tables() {
		name := fmt.Sprintf("network %q", t.network)
		if t.network == "" {
			name = "the global scope"
		}
		check(name+": nodes", len(t.streams), l.Owners)
		check(name+": records", t.use.records, l.TableRecords)
		check(name+": bytes", t.use.bytes, l.TableBytes)
	}
	for _, o := range slices.Sorted(maps.Keys(s.definer.ignored)) {
		out = append(out, fmt.Sprintf("node %q states %d networks, more than %d: what it says of networks is not listened to",
			o, len(s.definer.of[o]), maxNetworks))
		if len(out) > 8 {
			break
		}
	}
	check("all tables: records", s.total.records, l.StoreRecords)
	check("all tables: bytes", s.total.bytes, l.StoreBytes)
	check("incomplete deltas: bytes", s.total.staged, l.StageBytes)
	return strings.Join(out, "; ")
}

// SetLimits replaces the limits, but for whether loopback addresses of tasks are
// shown. What is there and is more than they allow stays, and nothing is added to
// it.
func (s *Store) SetLimits(l Limits) {
	l.AllowLoopback = s.limits.AllowLoopback
	s.limits = l
	for _, t := range s.Tables() {
		t.limits = l
	}
}

// Limits returns the limits.
func (s *Store) Limits() Limits { return s.limits }

// Usage returns what all tables hold: records with tombstones and the bytes of
// their text; and how much of either there may be.
func (s *Store) Usage() (records, bytes, maxRecords, maxBytes int) {
	return s.total.records, s.total.bytes, s.limits.StoreRecords, s.limits.StoreBytes
}
