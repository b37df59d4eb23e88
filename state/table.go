package state

import (
	"errors"
	"slices"
	"strings"
)

// Limits bound what one owner may state in one network (S13).
type Limits struct {
	Entries    int // live records and tombstones
	Bytes      int // their text
	Owners     int // in one network; a guard against a hostile peer
	Tombstones int // kept at most; above, the owner raises the floor to half of it (S6)

	// Of all owners together (S19).
	TableRecords, TableBytes int // in one network
	StoreRecords, StoreBytes int // in all networks of the node
	StageBytes               int // of incomplete deltas, in all networks

	AllowLoopback bool // show tasks at loopback addresses, for trials on one host
}

// DefaultLimits suit an owner with up to a hundred thousand tasks in one network.
func DefaultLimits() Limits {
	return Limits{Entries: 200_000, Bytes: 64 << 20, Owners: 50_000, Tombstones: 512}.withTotals()
}

// withTotals fills in what is left out of the bounds on all owners together:
// room for four times the largest mesh that is measured, a million endpoints.
func (l Limits) withTotals() Limits {
	for _, f := range []struct {
		field *int
		size  int
	}{
		{&l.TableRecords, 4_000_000},
		{&l.TableBytes, 1 << 30},
		{&l.StoreRecords, 8_000_000},
		{&l.StoreBytes, 2 << 30},
		{&l.StageBytes, 256 << 20},
	} {
		if *f.field == 0 {
			*f.field = f.size
		}
	}
	return l
}

// What one record takes besides its text, with its part of all indexes, and the
// least for which ForMemory makes bounds.
const (
	recordMemory   = 300
	MinTableMemory = 64 << 20
)

// ForMemory returns the limits with bounds on all owners together such that what
// they state takes no more than about so many bytes of memory (S19): half of them
// may be text, half what records take besides; one network may have half of
// either. Less than MinTableMemory counts as that.
func (l Limits) ForMemory(bytes int) Limits {
	bytes = max(bytes, MinTableMemory)
	l.StoreBytes, l.StoreRecords = bytes/2, bytes/2/recordMemory
	l.TableBytes, l.TableRecords = l.StoreBytes/2, l.StoreRecords/2
	l.StageBytes = bytes / 8
	return l
}

// Errors that Apply and Commit wrap.
var (
	ErrQuota   = errors.New("quota of one owner in one network exceeded") // S13
	ErrYielded = errors.New("another live node has this node's name")     // S7: returned by Commit
	errChunk   = errors.New("contradictory delta")
)

// Table is the replicated table of one network: a stream per owner. It belongs
// to one goroutine; readers use its View.
type Table struct {
	network string
	self    NodeID
	inc     uint64 // the incarnation that this node's own stream starts with
	limits  Limits
	streams map[NodeID]*stream
	live    map[NodeID]Liveness // the store's
	fine    [fineBuckets]uint64 // hash of the offered streams, by owner hash
	entries int                 // live records over all streams
	grave   map[NodeID]Head     // heads of dropped streams (S9)
	words   map[NodeID]uint64   // incarnations by their owners' own word, where others said much more (S16)
	index   *index
	// committed is told what this node states by its own hand; nil: nobody is.
	committed func([]Change)
	yielded   bool   // another live node has our name and came first (S7)
	poison    uint64 // records kept but not shown, ever (G8)

	disbelief *Disbelief // the store's
	use       usage
	total     *usage // the store's
	evicted   uint64 // streams dropped for lack of room, ever
	// stageLooks is how often incomplete deltas were looked through for room.
	stageLooks uint64
}

const fineBuckets = 256 // a power of two; a summary folds them

// newTable returns an empty table of s.
func newTable(network string, s *Store) *Table {
	t := &Table{
		network: network, self: s.self, inc: s.inc, limits: s.limits, live: s.live, yielded: s.yielded,
		streams: map[NodeID]*stream{}, grave: map[NodeID]Head{}, words: map[NodeID]uint64{},
		index: newIndex(network, s.clock), disbelief: &s.disbelief, total: &s.total,
	}
	t.index.bars.self, t.index.bars.loopback, t.index.bars.pools = s.self, s.limits.AllowLoopback, s.pools
	return t
}

// Network returns the name of the table's network; "" is the global scope.
func (t *Table) Network() string { return t.network }

// View returns the readers' side. It is safe for concurrent use.
func (t *Table) View() View { return t.index }

// Head returns the head of an owner's stream, and whether there is one.
func (t *Table) Head(o NodeID) (Head, bool) {
	if s := t.streams[o]; s != nil && s.head.Inc > 0 {
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

// Streams returns the number of owners that have a stream.
func (t *Table) Streams() int { return len(t.streams) }

// Len returns the number of live records.
func (t *Table) Len() int { return t.entries }

// Unbelieved returns how many claims ever bore a time so far ahead that this
// node does not carry them for their author (S16).
func (t *Table) Unbelieved() uint64 { return t.index.unbelieved }

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

// Checksum is the checksum of the table's whole live content: the number that is exported and that meshctl
// diff compares (S10).
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

// HashWith returns the hash of a table that has these heads in some of n buckets,
// and in the others what this one has: what a peer's is, if it said so.
func (t *Table) HashWith(n int, buckets []int, heads []OwnerHead) uint64 {
	h, in := t.Hash(), make([]bool, n)
	own := t.Buckets(n)
	for _, b := range buckets {
		if b >= 0 && b < n && !in[b] {
			in[b] = true
			h -= own[b]
		}
	}
	for _, o := range heads {
		if key := ownerHash(o.Owner); in[key&uint64(n-1)] && !o.Retired && !o.Kept && o.Head.Inc > 0 {
			h += o.Head.hash(key)
		}
	}
	return h
}

// Bucket returns the bucket of an owner among n.
func Bucket(o NodeID, n int) int { return int(ownerHash(o) & uint64(n-1)) }

// OwnerHead is one line of a digest.
type OwnerHead struct {
	Owner   NodeID
	Head    Head
	Retired bool // dropped here after its owner was dead for long (S9)
	Kept    bool // held, but no longer offered: its owner is dead for some time (S9)
}

// Heads returns the heads of the owners for which in returns true, sorted by
// owner, the ones that are kept and the buried ones included.
func (t *Table) Heads(in func(NodeID) bool) []OwnerHead {
	var hs []OwnerHead
	for o, s := range t.streams {
		if s.head.Inc > 0 && in(o) {
			hs = append(hs, OwnerHead{Owner: o, Head: s.head, Kept: !s.offered})
		}
	}
	for o, h := range t.grave {
		if in(o) {
			hs = append(hs, OwnerHead{Owner: o, Head: h, Retired: true})
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
	t.account(s)
	if s.offered && s.head.Inc > 0 {
		t.fine[b] += s.head.hash(s.hash)
	}
}

func (t *Table) stream(o NodeID) *stream {
	s := t.streams[o]
	if s == nil {
		s = newStream(o)
		s.status = t.live[o]
		t.streams[o] = s
	}
	return s
}

// Delta builds the next chunk of a stream for a replica that wants w, with at
// most budget bytes of records. It is nil if there is nothing to send.
func (t *Table) Delta(w Want, budget int) *Delta {
	s := t.streams[w.Owner]
	if s == nil || !s.offered || s.head.Inc == 0 || s.head.Inc < w.Inc {
		return nil
	}
	if s.resync && s.status.Answers() { // of the dead, nobody else may have it
		return nil
	}
	if s.head.Inc == w.Inc && w.After > s.head.Version {
		return nil
	}
	return s.delta(t.network, w, budget)
}

// Want returns what to ask a peer for whose head of the owner's stream is h,
// and whether there is anything to ask for.
func (t *Table) Want(o NodeID, h Head) (Want, bool) {
	if g, buried := t.grave[o]; buried && h.Inc <= g.Inc || o == t.self && !t.yielded || h.Inc == 0 || h.beyond() ||
		!t.acceptable(o, h.Inc) {
		return Want{}, false
	}
	s := t.streams[o]
	if s == nil {
		return Want{Owner: o}, true
	}
	if s.stage != nil && s.stage.inc < h.Inc {
		s.stage = nil
		t.tidy(s)
	}
	// Equal heads with different content: only the owner can settle it (S7,
	// S10), unless this replica knows that it is the one that differs.
	if h.Compare(s.head) == 0 && h.Sum > s.head.Sum && !s.status.Answers() {
		s.resync = true // no owner is there to settle it: the higher checksum does
	}
	if c := h.Compare(s.head); c < 0 || c == 0 && !s.resync {
		return Want{}, false
	}
	if st := s.stage; st != nil && (h.Inc < st.inc || h.Version < st.to) {
		return s.wantNew(), true // that peer cannot continue what is staged
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
