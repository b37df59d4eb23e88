package state

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// stream is everything one owner says in one network, in version order (S2,
// S3). It belongs to the table's goroutine.
type stream struct {
	owner   NodeID
	hash    uint64 // of the owner's name
	head    Head
	live    map[string]*Entry // by Entry.mapKey
	dead    map[string]*Entry // tombstones in (Floor, Version]
	log     []*Entry          // live and dead by version; superseded ones are marked gone
	gone    int               // how many of log are gone
	wasted  int               // sum of size over these
	bytes   int               // sum of size over live and dead
	stage   *stage            // an incomplete delta, or nil
	status  Liveness
	counted usage // as the table and the store count it
	offered bool  // in digests: not past D1 (S9)
	resync  bool  // content is known to differ: take the next snapshot even at an equal head
}

// stage holds a chunked delta until it is complete (S4). Its chunks may come
// from several senders, none behind the one before.
type stage struct {
	inc      uint64
	from     uint64
	snapshot bool
	began    uint64 // version of the first chunk's sender
	to       uint64 // version of the last chunk's sender
	upto     uint64 // records up to it are here
	records  []Record
	bytes    int
	at       time.Duration // of the last chunk
}

// fits reports whether a sender at head h can continue the stage: none of the
// tombstones that matter is forgotten there. A record that the stage holds was
// live at version began, so only later tombstones concern a snapshot.
func (st *stage) fits(h Head) bool {
	known := st.upto
	if st.snapshot {
		known = max(known, st.began)
	}
	return h.Inc == st.inc && h.Version >= st.to && h.Floor <= known
}

func newStream(owner NodeID) *stream {
	return &stream{
		owner: owner, hash: ownerHash(owner), live: map[string]*Entry{}, dead: map[string]*Entry{},
		offered: true,
	}
}

// put makes e current and returns the live entry that it replaces, or nil.
func (s *stream) put(e *Entry) (old *Entry) {
	k := e.mapKey()
	if old = s.live[k]; old != nil {
		s.drop(s.live, old)
		s.head.Sum -= old.sum()
	} else if t := s.dead[k]; t != nil {
		s.drop(s.dead, t)
	}
	if e.deleted {
		s.dead[k] = e
	} else {
		s.live[k] = e
		s.head.Sum += e.sum()
	}
	s.bytes += e.size()
	s.append(e)
	return old
}

func (s *stream) drop(m map[string]*Entry, e *Entry) {
	delete(m, e.mapKey())
	e.gone = true
	s.gone++
	s.wasted += e.size()
	s.bytes -= e.size()
}

// append adds e to the log; entries come in version order.
func (s *stream) append(e *Entry) {
	s.shrink()
	s.log = append(s.log, e)
}

// shrink gives back what records took that are gone, once that is much: nobody
// accounts for it.
func (s *stream) shrink() {
	if (s.gone <= len(s.log)/2 || s.gone <= 16) && s.wasted <= max(s.bytes, MaxBody) {
		return
	}
	log := make([]*Entry, 0, len(s.live)+len(s.dead)+1)
	for _, e := range s.log {
		if !e.gone {
			log = append(log, e)
		}
	}
	if len(log) < len(s.log)/4 { // maps never become smaller by themselves
		s.live, s.dead = shrunk(s.live), shrunk(s.dead)
	}
	s.log, s.gone, s.wasted = log, 0, 0
}

// shrunk returns a copy of m in no more room than that needs.
func shrunk(m map[string]*Entry) map[string]*Entry {
	out := make(map[string]*Entry, len(m))
	maps.Copy(out, m)
	return out
}

// search returns the index of the first log entry with a version above v.
func (s *stream) search(v uint64) int {
	i, _ := slices.BinarySearchFunc(s.log, v, func(e *Entry, v uint64) int {
		if e.version <= v {
			return -1
		}
		return 1
	})
	return i
}

// raiseFloor forgets the tombstones up to floor (S6).
func (s *stream) raiseFloor(floor uint64) {
	if floor <= s.head.Floor {
		return
	}
	s.head.Floor = floor
	for _, e := range s.dead {
		if e.version <= floor {
			s.drop(s.dead, e)
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
// snapshot can be continued is the receiver's to judge: see stage.fits.
func (s *stream) delta(network string, w Want, budget int) *Delta {
	d := &Delta{
		Network: network, Owner: s.owner, Inc: s.head.Inc, From: w.From, To: s.head.Version,
		Floor: s.head.Floor, Sum: s.head.Sum, Snapshot: w.Snapshot, After: w.After, Upto: s.head.Version,
	}
	resumed := w.Snapshot && w.From == 0 && w.Inc == s.head.Inc && w.After <= s.head.Version
	if !resumed && (w.Snapshot || !Servable(s.head, w.Inc, w.After) || w.From > w.After) {
		d.Snapshot, d.From, d.After = true, 0, 0
	}
	for _, e := range s.log[s.search(d.After):] {
		if e.gone {
			continue
		}
		if budget -= e.size(); budget < 0 && len(d.Records) > 0 {
			d.Upto = d.Records[len(d.Records)-1].Version
			break
		}
		d.Records = append(d.Records, e.record())
	}
	return d
}

// find returns the stream's entry of a kind and key, a tombstone too, or nil.
func (s *stream) find(k Kind, key string) *Entry {
	mk := string([]byte{byte(k)}) + key
	if e := s.live[mk]; e != nil {
		return e
	}
	return s.dead[mk]
}

// smallStream is how many records fit what an empty stream holds already.
const smallStream = 8

// reset empties the stream, which n records will fill, and returns what was
// live, for the view to forget.
func (s *stream) reset(n int) []*Entry {
	if len(s.log) == 0 && n <= smallStream { // the usual first snapshot
		s.log = make([]*Entry, 0, n)
		return nil
	}
	old := make([]*Entry, 0, len(s.live))
	for _, e := range s.live {
		e.gone = true
		old = append(old, e)
	}
	s.live, s.dead, s.gone, s.wasted, s.bytes = make(map[string]*Entry, n), map[string]*Entry{}, 0, 0, 0
	s.log = make([]*Entry, 0, n)
	s.head.Sum = 0
	return old
}

// sorted returns the live entries by kind and key.
func (s *stream) sorted() []*Entry {
	es := make([]*Entry, 0, len(s.live))
	for _, e := range s.live {
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b *Entry) int { return strings.Compare(a.mapKey(), b.mapKey()) })
	return es
}
