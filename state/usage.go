package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

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

// account brings the counts of the table and the store in line with a stream.
func (t *Table) account(s *stream) {
	now := usage{records: len(s.live) + len(s.dead), bytes: s.bytes}
	if s.stage != nil {
		now.staged = s.stage.bytes
	}
	if now == s.counted {
		return
	}
	for _, u := range []*usage{&t.use, t.total} {
		u.add(s.counted, -1)
		u.add(now, 1)
	}
	s.counted = now
}

// admitOwner reports whether the table has room for one more owner's stream.
// What nobody answers for makes room for an owner that lives, and for nobody
// else: made-up owners keep no honest one out.
func (t *Table) admitOwner(o NodeID) error {
	if len(t.streams) < t.limits.Owners || t.live[o] != Dead && t.evict(o) {
		return nil
	}
	return fmt.Errorf("network %q: %w: %d owners", t.network, ErrQuota, t.limits.Owners)
}

// evict drops the stream of an owner that does not live, not o's, and reports
// whether there was one; those of whom nothing is known go first.
func (t *Table) evict(o NodeID) bool {
	var victim *stream
	for name, s := range t.streams {
		if name == o || name == t.self || s.status != Dead {
			continue
		}
		_, known := t.live[name]
		if victim = s; !known {
			break
		}
	}
	if victim == nil {
		return false
	}
	t.Retire(victim.owner)
	t.Readmit(victim.owner) // it may come back when there is room
	t.evicted++
	return true
}

// room reports whether a stream may grow to n records and b bytes, by what the
// table and the store may hold in all (S19). Streams of owners that do not live
// give way if that makes room enough, and stay where it would not.
func (t *Table) room(s *stream, n, b int) error {
	for looked := false; ; looked = true {
		grow := usage{records: n - s.counted.records, bytes: b - s.counted.bytes}
		if grow.records <= 0 && grow.bytes <= 0 || t.fits(grow) {
			return nil
		}
		if s.status != Dead && !looked {
			spared := grow
			spared.add(t.givesWay(s.owner), -1)
			looked = t.fits(spared)
		}
		if s.status == Dead || !looked || !t.evict(s.owner) {
			return fmt.Errorf("network %q owner %q: %w: the tables are full", t.network, s.owner, ErrQuota)
		}
	}
}

// fits reports whether the table and the store have room for so much more.
func (t *Table) fits(more usage) bool {
	l := &t.limits
	return t.use.records+more.records <= l.TableRecords && t.use.bytes+more.bytes <= l.TableBytes &&
		t.total.records+more.records <= l.StoreRecords && t.total.bytes+more.bytes <= l.StoreBytes
}

// givesWay returns what evict could free for an owner.
func (t *Table) givesWay(o NodeID) (u usage) {
	for name, s := range t.streams {
		if name != o && name != t.self && s.status == Dead {
			u.add(s.counted, 1)
		}
	}
	return u
}

// staleStage is how long a delta that does not go on keeps its place when
// others need it.
const staleStage = 30 * time.Second

// stageRoom makes room for n more bytes of s's incomplete delta: the others'
// that nobody answers for go first, then those that stand still, then the
// largest. It reports whether there is room. Of those that nobody misses an
// eighth of all goes at a time, so that not each chunk has to look for some.
func (t *Table) stageRoom(s *stream, n int) bool {
	if t.total.staged+n <= t.limits.StageBytes {
		return true
	}
	t.stageLooks++
	var idle, busy []*stream
	for _, o := range t.streams {
		switch {
		case o == s || o.stage == nil:
		case t.idleness(o) > 0:
			idle = append(idle, o)
		default:
			busy = append(busy, o)
		}
	}
	t.dropStages(idle, t.limits.StageBytes/8*7-n)
	t.dropStages(busy, t.limits.StageBytes-n)
	return t.total.staged+n <= t.limits.StageBytes
}

// dropStages drops incomplete deltas until no more than most bytes are left.
func (t *Table) dropStages(of []*stream, most int) {
	if t.total.staged <= most {
		return
	}
	slices.SortFunc(of, t.compareIdle)
	for _, o := range of {
		if t.total.staged <= most {
			return
		}
		o.stage = nil
		t.tidy(o)
	}
}

// idleness says how little an incomplete delta is missed.
func (t *Table) idleness(s *stream) int {
	switch {
	case s.status == Dead:
		return 2
	case t.index.clock.now-s.stage.at > staleStage:
		return 1
	}
	return 0
}

// compareIdle orders streams with incomplete deltas, those that go first first.
func (t *Table) compareIdle(a, b *stream) int {
	return cmp.Or(cmp.Compare(t.idleness(b), t.idleness(a)), cmp.Compare(b.stage.bytes, a.stage.bytes),
		strings.Compare(string(a.owner), string(b.owner)))
}

// tidy counts a stream anew and forgets it if there is nothing of it: only what
// has landed, or is about to, makes an owner (S19).
func (t *Table) tidy(s *stream) {
	t.account(s)
	if s.head.Inc > 0 || s.stage != nil {
		t.streams[s.owner] = s
	} else if t.streams[s.owner] == s {
		delete(t.streams, s.owner)
	}
}

// Full says which bounds of the store are reached to four fifths or more, for
// people; empty: none.
func (s *Store) Full() string {
	var out []string
	note := func(what string, have, limit int) {
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
		note(name+": nodes", len(t.streams), l.Owners)
		note(name+": records", t.use.records, l.TableRecords)
		note(name+": bytes", t.use.bytes, l.TableBytes)
	}
	for _, o := range slices.Sorted(maps.Keys(s.definer.loud)) {
		out = append(out, fmt.Sprintf("node %q states %d networks, more than %d: what it says of networks is not listened to",
			o, len(s.definer.of[o]), maxNetworks))
		if len(out) > 8 {
			break
		}
	}
	note("all tables: records", s.total.records, l.StoreRecords)
	note("all tables: bytes", s.total.bytes, l.StoreBytes)
	note("incomplete deltas: bytes", s.total.staged, l.StageBytes)
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

// Usage returns what all tables hold: records with tombstones and the bytes of
// their text; and how much of either there may be.
func (s *Store) Usage() (records, bytes, maxRecords, maxBytes int) {
	return s.total.records, s.total.bytes, s.limits.StoreRecords, s.limits.StoreBytes
}

// Usage returns what a table holds: records with tombstones, the bytes of
// their text, and those of incomplete deltas; and how many streams it dropped
// to make room.
func (t *Table) Usage() (records, bytes, staged int, evicted uint64) {
	return t.use.records, t.use.bytes, t.use.staged, t.evicted
}
