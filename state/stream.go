package state

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// This file owns what one owner says in one network. A stream knows its records
// and its head; who may change it, and what readers see of it, is the table's.

// stream is everything one owner says in one network (S2, S3). It belongs to the
// table's goroutine.
//
// Invariants: head.Sum is the sum of Entry.sum over live; each entry of live and
// dead is in log, not superseded, and the log has no others that are not.
type stream struct {
	owner NodeID // set once; readers may read it
	hash  uint64 // of the owner's name

	// The content.
	head  Head              // how far the owner has got
	live  map[string]*slot  // by Entry.mapKey; current is never nil
	dead  map[string]*Entry // tombstones in (head.Floor, head.Version]
	log   versionLog        // live and dead by version
	bytes int               // sum of Entry.size over live and dead

	// How this node deals with the stream.
	stage   *stage   // an incomplete delta, or nil
	resync  bool     // content is known to differ: take the next snapshot even at an equal head
	status  Liveness // what this node thinks of the owner
	offered bool     // in digests: not past D1 (S9)
	counted usage    // as the table and the store count it
	place   int      // where it is in its list of streamPlaces, from 1; 0: in none
}

// stage holds a chunked delta until it is complete (S4). Its chunks may come
// from several senders, none behind the one before.
type stage struct {
	// What it will be once it is complete.
	inc      uint64 // incarnation
	from     uint64 // version that it starts at
	snapshot bool   // replaces all

	// What is here.
	began   uint64        // version of the first chunk's sender
	to      uint64        // version of the last chunk's sender
	upto    uint64        // records up to it are here
	records []Record      // in the order of their versions
	bytes   int           // sum of Record.size over records
	at      time.Duration // when the last chunk came; monotonic
}

// continuedBy reports whether a sender at head h can continue the stage: none of
// the tombstones that matter is forgotten there. A record that the stage holds was
// live at version began, so only later tombstones concern a snapshot.
func (st *stage) continuedBy(h Head) bool {
	known := st.upto
	if st.snapshot {
		known = max(known, st.began)
	}
	return h.Inc == st.inc && h.Version >= st.to && h.Floor <= known
}

func newStream(owner NodeID) *stream {
	return &stream{
		owner: owner, hash: ownerHash(owner), live: map[string]*slot{}, dead: map[string]*Entry{},
		offered: true,
	}
}

// put makes e current. in is the slot in which it is, nil for a tombstone, and
// was what it replaces there, nil if the slot is new. left is a slot that has
// nothing current any more, of which was is the last entry, or nil.
func (s *stream) put(e *Entry) (left, in *slot, was *Entry) {
	key := e.mapKey()
	if in = s.live[key]; in != nil {
		was = in.current
		s.supersede(was)
		s.head.Sum -= was.sum()
		if e.deleted || was.Group() != e.Group() {
			delete(s.live, key)
			in.current = nil
			left, in = in, nil
		}
	} else if t := s.dead[key]; t != nil {
		delete(s.dead, key)
		s.supersede(t)
	}
	if !e.deleted {
		if in == nil {
			in = &slot{}
		}
		s.set(in, e)
		return left, in, was
	}
	s.dead[key] = e
	s.add(e)
	return left, nil, was
}

// set makes e the current entry of a slot. What was there before is superseded
// already.
func (s *stream) set(sl *slot, e *Entry) {
	sl.current = e
	s.live[e.mapKey()] = sl // with the key of e, so that the text of the former entry goes
	s.head.Sum += e.sum()
	s.add(e)
}

// add counts e and appends it to the log; entries come in version order.
func (s *stream) add(e *Entry) {
	s.bytes += e.size()
	s.shrink()
	s.log.append(e)
}

// supersede counts an entry out that is live or dead no longer.
func (s *stream) supersede(e *Entry) {
	s.log.supersede(e)
	s.bytes -= e.size()
}

// shrink gives back the memory of superseded records once that is much.
func (s *stream) shrink() {
	if !s.log.wasteful(s.bytes) {
		return
	}
	before := len(s.log.entries)
	s.log.compact()
	if len(s.log.entries) < before/4 { // maps never become smaller by themselves
		s.live, s.dead = shrunk(s.live), shrunk(s.dead)
	}
}

// shrunk returns a copy of m in no more room than that needs.
func shrunk[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	maps.Copy(out, m)
	return out
}

// raiseFloor forgets the tombstones up to floor (S6).
func (s *stream) raiseFloor(floor uint64) {
	if floor <= s.head.Floor {
		return
	}
	s.head.Floor = floor
	for key, e := range s.dead {
		if e.version <= floor {
			delete(s.dead, key)
			s.supersede(e)
		}
	}
	s.shrink()
}

// tombstones returns the versions of the tombstones in order.
func (s *stream) tombstones() []uint64 {
	vs := make([]uint64, 0, len(s.dead))
	for _, e := range s.dead {
		vs = append(vs, e.version)
	}
	slices.Sort(vs)
	return vs
}

// Want names what a replica of one stream has, so that a peer can tell what it
// lacks: the records after version After of incarnation Inc. From and Snapshot
// differ from After and false when a chunked delta is resumed.
type Want struct {
	Owner    NodeID
	Inc      uint64
	From     uint64
	After    uint64
	Snapshot bool
}

// want returns what to ask for to move this replica forward.
func (s *stream) want() Want {
	if st := s.stage; st != nil {
		return Want{Owner: s.owner, Inc: st.inc, From: st.from, After: st.upto, Snapshot: st.snapshot}
	}
	return s.wantNew()
}

// wantNew is want without what is staged.
func (s *stream) wantNew() Want {
	if s.resync {
		return Want{Owner: s.owner}
	}
	return Want{Owner: s.owner, Inc: s.head.Inc, From: s.head.Version, After: s.head.Version}
}

// delta builds the next chunk for a replica that wants w, of at most budget
// bytes of records but at least one record: from w.After on if the tombstones
// since are still known (S5), else a snapshot from the start (S4). Whether a
// snapshot can be continued is for the receiver to decide: see stage.continuedBy.
func (s *stream) delta(network string, w Want, budget int) *Delta {
	d := &Delta{
		Network: network, Owner: s.owner, Inc: s.head.Inc, From: w.From, To: s.head.Version,
		Floor: s.head.Floor, Sum: s.head.Sum, Snapshot: w.Snapshot, After: w.After, Upto: s.head.Version,
	}
	resumed := w.Snapshot && w.From == 0 && w.Inc == s.head.Inc && w.After <= s.head.Version
	if !resumed && (w.Snapshot || !servable(s.head, w.Inc, w.After) || w.From > w.After) {
		d.Snapshot, d.From, d.After = true, 0, 0
	}
	for i := s.log.after(d.After); i < len(s.log.entries); i++ {
		if s.log.isSuperseded(i) {
			continue
		}
		e := s.log.entries[i]
		if budget -= e.size(); budget < 0 && len(d.Records) > 0 {
			d.Upto = d.Records[len(d.Records)-1].Version
			break
		}
		d.Records = append(d.Records, e.record())
	}
	return d
}

// current returns the stream's live entry of a kind and key, or nil.
func (s *stream) current(k Kind, key string) *Entry {
	if sl := s.live[string([]byte{byte(k)})+key]; sl != nil {
		return sl.current
	}
	return nil
}

// find is current that returns a tombstone too.
func (s *stream) find(k Kind, key string) *Entry {
	if e := s.current(k, key); e != nil {
		return e
	}
	return s.dead[string([]byte{byte(k)})+key]
}

// smallStream is how many records an empty stream has room for already.
const smallStream = 8

// reset empties the stream, which n records will fill, and returns the slots that
// were live, as they were.
func (s *stream) reset(n int) (before map[string]*slot) {
	if len(s.log.entries) == 0 && n <= smallStream { // the usual first snapshot
		s.log = newVersionLog(n)
		return nil
	}
	before = s.live
	s.live, s.dead, s.bytes = make(map[string]*slot, n), map[string]*Entry{}, 0
	s.log = newVersionLog(n)
	s.head.Sum = 0
	return before
}

// sorted returns the live entries by kind and key.
func (s *stream) sorted() []*Entry {
	es := make([]*Entry, 0, len(s.live))
	for _, sl := range s.live {
		es = append(es, sl.current)
	}
	slices.SortFunc(es, func(a, b *Entry) int { return strings.Compare(a.mapKey(), b.mapKey()) })
	return es
}
