package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits bound what one owner may state in one network (S13).
type Limits struct {
	Entries    int // live records and tombstones
	Bytes      int // their text
	Owners     int // in one network; a guard against a hostile peer
	Tombstones int // kept at most; above, the owner raises the floor to half of it (S6)
}

// DefaultLimits suit an owner with up to a hundred thousand tasks in one network.
func DefaultLimits() Limits {
	return Limits{Entries: 200_000, Bytes: 64 << 20, Owners: 50_000, Tombstones: 512}
}

// Errors that Apply and Commit wrap.
var (
	ErrQuota = errors.New("quota of one owner in one network exceeded") // S13
	errChunk = errors.New("contradictory delta")
)

// Table is the replicated table of one network: a stream per owner. It belongs
// to one goroutine; readers use its View.
type Table struct {
	network string
	self    NodeID
	inc     uint64 // the incarnation that this node's own stream starts with
	limits  Limits
	streams map[NodeID]*stream
	fine    [fineBuckets]uint64 // hash of the offered streams, by owner hash
	entries int                 // live records over all streams
	grave   map[NodeID]Head     // heads of dropped streams (S9)
	index   *index
	yielded bool   // another live node has our name and came first (S7)
	poison  uint64 // records kept but not shown, ever (G8)
}

const fineBuckets = 256 // a power of two; a summary folds them

func newTable(network string, self NodeID, inc uint64, limits Limits, clock Clock) *Table {
	t := &Table{network: network, self: self, inc: inc, limits: limits, streams: map[NodeID]*stream{}, grave: map[NodeID]Head{}}
	t.index = newIndex(network, clock)
	return t
}

// Network returns the name of the table's network; "" is the global scope.
func (t *Table) Network() string { return t.network }

// View returns the readers' side. It is safe for concurrent use.
func (t *Table) View() View { return t.index }

// Head returns the head of an owner's stream, and whether there is one.
func (t *Table) Head(o NodeID) (Head, bool) {
	if s := t.streams[o]; s != nil {
		return s.head, true
	}
	return Head{}, false
}

// Owners returns the owners that have a stream, sorted.
func (t *Table) Owners() []NodeID {
	os := make([]NodeID, 0, len(t.streams))
	for o := range t.streams {
		os = append(os, o)
	}
	slices.Sort(os)
	return os
}

// Len returns the number of live records.
func (t *Table) Len() int { return t.entries }

// Poison returns how many records were ever kept but not shown, because their
// kind is known and their body is not readable (G8).
func (t *Table) Poison() uint64 { return t.poison }

// Hash is the 8-byte summary that digest repair compares first (G4): equal
// hashes mean equal offered streams, heads and content.
func (t *Table) Hash() uint64 {
	var h uint64
	for _, f := range t.fine {
		h += f
	}
	return h
}

// Checksum is the checksum of the table's whole live content with its heads:
// the number that is exported and that meshctl diff compares (S10).
func (t *Table) Checksum() uint64 {
	var h uint64
	for _, s := range t.streams {
		if len(s.live) > 0 {
			h += mix64(s.head.Sum ^ s.hash)
		}
	}
	return h
}

// Buckets folds the hash to n buckets, n a power of two up to 256.
func (t *Table) Buckets(n int) []uint64 {
	out := make([]uint64, n)
	for i, f := range t.fine {
		out[i&(n-1)] += f
	}
	return out
}

// Bucket returns the bucket of an owner among n.
func Bucket(o NodeID, n int) int { return int(ownerHash(o) & uint64(n-1)) }

// OwnerHead is one line of a digest.
type OwnerHead struct {
	Owner  NodeID
	Head   Head
	Buried bool // dropped here after its owner was dead for long (S9)
}

// Heads returns the offered heads of the owners for which in returns true,
// sorted by owner. Buried ones are included.
func (t *Table) Heads(in func(NodeID) bool) []OwnerHead {
	var hs []OwnerHead
	for o, s := range t.streams {
		if s.offered && in(o) {
			hs = append(hs, OwnerHead{Owner: o, Head: s.head})
		}
	}
	for o, h := range t.grave {
		if in(o) {
			hs = append(hs, OwnerHead{Owner: o, Head: h, Buried: true})
		}
	}
	slices.SortFunc(hs, func(a, b OwnerHead) int { return strings.Compare(string(a.Owner), string(b.Owner)) })
	return hs
}

// touch runs f, which may change s, and keeps the table's hash true.
func (t *Table) touch(s *stream, f func()) {
	b := s.hash & (fineBuckets - 1)
	if s.offered && s.head.Inc > 0 {
		t.fine[b] -= s.head.hash(s.hash)
	}
	f()
	if s.offered && s.head.Inc > 0 {
		t.fine[b] += s.head.hash(s.hash)
	}
}

func (t *Table) stream(o NodeID) *stream {
	s := t.streams[o]
	if s == nil {
		s = newStream(o)
		s.status = Dead // until somebody says otherwise: Store sets it
		t.streams[o] = s
	}
	return s
}

// Result says what a delta did to the table.
type Result uint8

// The results of Apply.
const (
	Ignored Result = iota // old news
	Applied               // the stream moved forward
	Staged                // a chunk is kept; Want asks for the next
	Gap                   // the delta starts after what we hold: pull
	Refused               // poison, over quota or contradictory; err says why
)

// Apply merges a delta from a peer into the stream of another owner. It never
// changes this node's own stream: Self tells about that.
func (t *Table) Apply(d *Delta) (Result, error) {
	if err := d.check(); err != nil {
		return Refused, err
	}
	if g, buried := t.grave[d.Owner]; buried && d.Inc <= g.Inc {
		return Ignored, nil // S9: it does not come back from the dead
	}
	if t.streams[d.Owner] == nil {
		if d.Owner == t.self && !t.yielded || !Applies(Head{}, d.Inc, d.From, d.Snapshot) {
			return Gap, nil
		}
		if len(t.streams) >= t.limits.Owners {
			return Refused, fmt.Errorf("network %q: %w: %d owners", t.network, ErrQuota, t.limits.Owners)
		}
	}
	s := t.stream(d.Owner)
	switch {
	case d.Owner == t.self && !t.yielded:
		return Ignored, nil // S1; SelfAhead has looked at it
	case s.stage != nil && s.stage.first.Inc == d.Inc && d.After > 0 && d.After <= s.stage.upto && d.Upto > s.stage.upto && !fresh(s, d):
		return t.extend(s, d)
	case d.Inc < s.head.Inc, !s.resync && d.Head().Compare(s.head) <= 0:
		return Ignored, nil
	case !Applies(s.head, d.Inc, d.From, d.Snapshot):
		return Gap, nil
	case d.After != d.From:
		return Ignored, nil // a chunk of something whose start we do not have
	case d.Upto == d.To:
		return t.land(s, d, d.Records)
	}
	s.stage = &stage{first: *d, upto: d.After}
	s.stage.first.Records = nil
	return t.extend(s, d)
}

// fresh reports whether d applies on its own, whatever is staged.
func fresh(s *stream, d *Delta) bool {
	return d.Whole() && Applies(s.head, d.Inc, d.From, d.Snapshot) && d.Head().Compare(s.head) > 0
}

// extend adds a chunk to the stage and lands it when complete.
func (t *Table) extend(s *stream, d *Delta) (Result, error) {
	st := s.stage
	for _, r := range d.Records {
		if r.Version > st.upto {
			st.records = append(st.records, r)
			st.bytes += len(r.Key) + len(r.Group) + len(r.Body) + 16
		}
	}
	if len(st.records) > t.limits.Entries || st.bytes > t.limits.Bytes {
		s.stage = nil
		return Refused, fmt.Errorf("network %q owner %q: %w: at most %d records or %d bytes", t.network, s.owner, ErrQuota, t.limits.Entries, t.limits.Bytes)
	}
	st.upto = d.Upto
	if d.Upto < d.To {
		return Staged, nil
	}
	whole := *d
	whole.From, whole.Snapshot, whole.After = st.first.From, st.first.Snapshot, st.first.From
	s.stage = nil
	if !Applies(s.head, whole.Inc, whole.From, whole.Snapshot) || (!s.resync && whole.Head().Compare(s.head) <= 0) {
		return Ignored, nil
	}
	return t.land(s, &whole, st.records)
}

// check refuses a delta that no correct node sends.
func (d *Delta) check() error {
	switch {
	case d.Owner == "" || len(d.Owner) > MaxName || len(d.Network) > MaxLabel:
		return fmt.Errorf("%w: bad owner or network name", errChunk)
	case d.Inc == 0 || d.From > d.After || d.After > d.Upto || d.Upto > d.To || d.Floor > d.To:
		return fmt.Errorf("%w: bounds", errChunk)
	case !d.Snapshot && d.After < d.Floor && d.Whole():
		return fmt.Errorf("%w: starts below its own floor", errChunk)
	}
	prev := d.After
	for i := range d.Records {
		r := &d.Records[i]
		if r.Version <= prev || r.Version > d.Upto {
			return fmt.Errorf("%w: record versions out of order", errChunk)
		}
		if r.Kind == 0 || len(r.Key) > MaxName || len(r.Group) > MaxName || len(r.Body) > MaxBody {
			return fmt.Errorf("%w: record %d", errChunk, r.Version)
		}
		prev = r.Version
	}
	return nil
}

// land applies a complete delta: the only place where a replica changes.
func (t *Table) land(s *stream, d *Delta, records []Record) (Result, error) {
	if n := t.quota(s, d, records); n != nil {
		return Refused, n
	}
	t.touch(s, func() {
		if d.Snapshot {
			t.replace(s, records)
		} else {
			for _, r := range records {
				if r.Version > s.head.Version {
					t.put(s, r)
				}
			}
		}
		s.head.Inc, s.head.Version = d.Inc, d.To
		if d.Snapshot {
			s.head.Floor = 0
		}
		s.raiseFloor(d.Floor)
		s.resync = s.head.Sum != d.Sum
	})
	s.stage = nil
	if s.resync {
		return Applied, fmt.Errorf("network %q owner %q: content differs at version %d of incarnation %d: taking its snapshot again", t.network, s.owner, d.To, d.Inc)
	}
	return Applied, nil
}

func (t *Table) quota(s *stream, d *Delta, records []Record) error {
	n, b := len(records), 0
	for _, r := range records {
		b += len(r.Key) + len(r.Group) + len(r.Body) + 16
	}
	if !d.Snapshot {
		n, b = n+len(s.live)+len(s.dead), b+s.bytes
	}
	if n > t.limits.Entries*2 || b > t.limits.Bytes*2 { // twice: the owner enforces, we only guard
		return fmt.Errorf("network %q owner %q: %w: at most %d records or %d bytes", t.network, s.owner, ErrQuota, t.limits.Entries, t.limits.Bytes)
	}
	return nil
}

// replace swaps the stream's content for a snapshot's records in one step.
func (t *Table) replace(s *stream, records []Record) {
	old := s.reset()
	t.entries -= len(old)
	for _, r := range records {
		e := t.entry(s, r)
		s.put(e)
		if !e.deleted {
			t.entries++
		}
	}
	for _, o := range old {
		t.index.change(o, s.live[o.mapKey()])
	}
	for _, e := range s.sorted() {
		if !e.listed {
			t.index.change(nil, e)
		}
	}
}

func (t *Table) put(s *stream, r Record) {
	e := t.entry(s, r)
	old := s.put(e)
	if old != nil {
		t.entries--
	}
	if e.deleted {
		e = nil
	} else {
		t.entries++
	}
	if old != nil || e != nil {
		t.index.change(old, e)
	}
}

// entry makes the entry of a record; poison is kept opaquely (G8).
func (t *Table) entry(s *stream, r Record) *Entry {
	e, err := newEntry(s, r)
	if err != nil {
		e.poison = true
		t.poison++
	}
	return e
}

// Delta builds the next chunk of a stream for a replica that wants w, with at
// most budget bytes of records. It is nil if there is nothing to send.
func (t *Table) Delta(w Want, budget int) *Delta {
	s := t.streams[w.Owner]
	if s == nil || !s.offered || s.head.Inc == 0 || s.head.Inc < w.Inc {
		return nil
	}
	if s.resync || (s.head.Inc == w.Inc && w.After > s.head.Version) {
		return nil
	}
	return s.delta(t.network, w, budget)
}

// Want returns what to ask a peer for whose head of the owner's stream is h,
// and whether there is anything to ask for.
func (t *Table) Want(o NodeID, h Head) (Want, bool) {
	if g, buried := t.grave[o]; buried && h.Inc <= g.Inc {
		return Want{}, false
	}
	s := t.streams[o]
	if s == nil {
		return Want{Owner: o}, h.Inc > 0
	}
	if s.stage != nil && s.stage.first.Inc < h.Inc {
		s.stage = nil
	}
	switch c := h.Compare(s.head); {
	case s.resync && c >= 0:
		return s.want(), true
	case c < 0, c == 0 && h.Sum == s.head.Sum:
		return Want{}, false
	case c == 0: // S7, S10: equal heads, different content: only the owner can settle it
		return Want{}, false
	}
	return s.want(), true
}

// Walk calls f for every live record, by owner, kind and key, until it returns false.
func (t *Table) Walk(f func(*Entry) bool) {
	for _, o := range t.Owners() {
		for _, e := range t.streams[o].sorted() {
			if !f(e) {
				return
			}
		}
	}
}
