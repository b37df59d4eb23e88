package state

import (
	"slices"
	"strings"
)

// This file owns the streams of one table: every change of a stream passes here,
// so that the digest, the counts and the index agree with the content.

// streamSet is the streams of all owners in one network. It belongs to the
// table's goroutine.
//
// Invariants: digest, entries and use are those of streams; each stream has a head
// or an incomplete delta.
type streamSet struct {
	network string // "" is the global scope
	self    NodeID // this node
	limits  Limits // the store's
	digest

	// The content.
	streams map[NodeID]*stream
	places  streamPlaces // the streams by bucket, where there are many
	entries int          // live records over all streams
	index   *index       // what readers see of them
	poison  uint64       // records kept but not shown, ever (G8)

	// What the store knows and counts.
	live    map[NodeID]Liveness // the store's; read only
	held    func(NodeID, bool)  // told when an owner comes to have a stream, or has none any more; or nil
	yielded bool                // another live node has our name and came first: our stream is a replica (S7)
	use     usage               // of streams
	total   *usage              // of all tables; the store's
}

// Network returns the name of the table's network; "" is the global scope.
func (set *streamSet) Network() string { return set.network }

// Head returns the head of an owner's stream, and whether there is one.
func (set *streamSet) Head(o NodeID) (Head, bool) {
	if s := set.streams[o]; s != nil && s.head.Inc > 0 {
		return s.head, true
	}
	return Head{}, false
}

// Owners returns the owners that have a stream, sorted.
func (set *streamSet) Owners() []NodeID {
	os := make([]NodeID, 0, len(set.streams))
	for o := range set.streams {
		os = append(os, o)
	}
	slices.Sort(os)
	return os
}

// Streams returns the number of owners that have a stream.
func (set *streamSet) Streams() int { return len(set.streams) }

// Len returns the number of live records.
func (set *streamSet) Len() int { return set.entries }

// OwnerLen returns the number of an owner's live records.
func (set *streamSet) OwnerLen(o NodeID) int {
	if s := set.streams[o]; s != nil {
		return len(s.live)
	}
	return 0
}

// Poison returns how many records were ever kept but not shown, because their
// kind is known and their body is not readable (G8).
func (set *streamSet) Poison() uint64 { return set.poison }

// Checksum is the checksum of the table's whole live content: the number that is exported and that meshctl
// diff compares (S10).
func (set *streamSet) Checksum() uint64 {
	var h uint64
	for _, s := range set.streams {
		if len(s.live) > 0 {
			h += mix64(s.head.Sum ^ s.hash)
		}
	}
	return h
}

// Walk calls f for every live record, by owner, kind and key, until it returns false.
func (set *streamSet) Walk(f func(*Entry) bool) {
	for _, o := range set.Owners() {
		for _, e := range set.streams[o].sorted() {
			if !f(e) {
				return
			}
		}
	}
}

// OwnerEntries returns an owner's live entries of a kind, sorted by key;
// unreadable ones are left out.
func (set *streamSet) OwnerEntries(o NodeID, k Kind) []*Entry {
	s := set.streams[o]
	if s == nil {
		return nil
	}
	var es []*Entry // few of many, as a rule: only those are sorted
	for _, sl := range s.live {
		if e := sl.readable(); e != nil && e.Kind() == k {
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b *Entry) int { return strings.Compare(a.Key(), b.Key()) })
	return es
}

// WantNext returns what to ask any peer for to move an owner's stream on.
func (set *streamSet) WantNext(o NodeID) Want {
	if s := set.streams[o]; s != nil {
		return s.want()
	}
	return Want{Owner: o}
}

// SetLiveness says what this node thinks of an owner and re-classes its
// endpoints if that changed (S9).
func (set *streamSet) SetLiveness(o NodeID, l Liveness) {
	s := set.streams[o]
	if s == nil || s.status == l {
		return
	}
	s.status = l
	for _, sl := range s.live {
		set.index.updateClass(sl)
	}
}

// SetOffered says whether an owner's stream is in the digests: not after it
// has been dead for D1 (S9).
func (set *streamSet) SetOffered(o NodeID, offered bool) {
	s := set.streams[o]
	if s == nil || s.offered == offered {
		return
	}
	set.count(s, -1)
	s.offered = offered
	set.count(s, 1)
}

func (set *streamSet) stream(o NodeID) *stream {
	s := set.streams[o]
	if s == nil {
		s = newStream(o)
		s.status = set.live[o]
		set.keep(s)
	}
	return s
}

// keep makes a stream one of the table's.
func (set *streamSet) keep(s *stream) {
	if set.streams[s.owner] == s {
		return
	}
	set.streams[s.owner] = s
	set.places.add(s, set.streams)
	if set.held != nil {
		set.held(s.owner, true)
	}
}

// discard makes a stream one of the table's no longer.
func (set *streamSet) discard(s *stream) {
	if set.streams[s.owner] != s {
		return
	}
	delete(set.streams, s.owner)
	set.places.remove(s)
	if set.held != nil {
		set.held(s.owner, false)
	}
}

// touch runs f, which may change s, and keeps the table's hash true.
func (set *streamSet) touch(s *stream, f func()) {
	set.count(s, -1)
	f()
	set.account(s)
	set.count(s, 1)
}

// put makes an entry of a stream current.
func (set *streamSet) put(s *stream, e *Entry) {
	left, in, was := s.put(e)
	if was != nil {
		set.entries--
	}
	if left != nil {
		set.index.update(left, was)
		was = nil
	}
	if in != nil {
		set.entries++
		set.index.update(in, was)
	}
}

// replace swaps the stream's content for a snapshot's records in one step.
func (set *streamSet) replace(s *stream, es []*Entry) {
	before := s.reset(len(es))
	set.entries -= len(before)
	for _, e := range es {
		sl := before[e.mapKey()]
		if sl == nil || e.deleted || sl.current.Group() != e.Group() {
			set.put(s, e)
			continue
		}
		was := sl.current
		delete(before, e.mapKey())
		s.set(sl, e)
		set.entries++
		set.index.update(sl, was)
	}
	set.drop(before)
}

// empty clears a stream and what readers see of it.
func (set *streamSet) empty(s *stream) {
	before := s.reset(0)
	set.entries -= len(before)
	set.drop(before)
}

// drop takes slots that are in no stream any more out of the index.
func (set *streamSet) drop(slots map[string]*slot) {
	for _, sl := range slots {
		was := sl.current
		sl.current = nil
		set.index.update(sl, was)
	}
}

// entry makes the entry of a record; poison is kept opaquely (G8).
func (set *streamSet) entry(s *stream, r Record) *Entry {
	e, err := newEntry(s, r)
	if err != nil {
		set.poison++
	}
	return e
}

// account brings the counts of the table and the store in line with a stream.
func (set *streamSet) account(s *stream) {
	now := usage{records: len(s.live) + len(s.dead), bytes: s.bytes}
	if s.stage != nil {
		now.staged = s.stage.bytes
	}
	if now == s.counted {
		return
	}
	for _, u := range []*usage{&set.use, set.total} {
		u.add(s.counted, -1)
		u.add(now, 1)
	}
	s.counted = now
}

// recount counts a stream anew and forgets it if there is nothing in it: only an
// applied delta, or an incomplete one, makes an owner (S19).
func (set *streamSet) recount(s *stream) {
	set.account(s)
	if s.head.Inc > 0 || s.stage != nil {
		set.keep(s)
	} else {
		set.discard(s)
	}
}

// Verify compares every stream's content with the checksum of its head, and
// the table's hash with its streams. A stream that differs asks for its owner's
// next snapshot; it returns how many do. It is for a table whose writer was
// interrupted: in all other cases there is nothing to find.
func (set *streamSet) Verify() (differ int) {
	set.fine = [fineBuckets]uint64{}
	for o, s := range set.streams {
		var sum uint64
		for _, sl := range s.live {
			sum += sl.current.sum()
		}
		if sum != s.head.Sum && o != set.self {
			s.resync, s.stage = true, nil
			differ++
		}
		s.head.Sum = sum
		set.count(s, 1)
	}
	return differ
}
