package state

import (
	"cmp"

	"github.com/cespare/xxhash/v2"
)

// This file owns records and deltas as they travel, and the checksums over them.

// Record is one record as it travels: the unit of a Delta.
type Record struct {
	Kind    Kind
	Key     string // unique per kind within a stream, at most MaxName bytes
	Group   string // for an endpoint its service; at most MaxName bytes
	Body    string // at most MaxBody bytes
	Version uint64 // assigned by the owner, unique within a stream
	Deleted bool   // a tombstone: Group and Body are empty
}

// Head says how far a stream is known. Heads are compared lexicographically by
// incarnation, version and floor (S2). Sum is the checksum of the live content
// at that point: equal heads with different sums are a fault (S7, S10).
type Head struct {
	Inc     uint64 // incarnation: the owner's life (S7)
	Version uint64
	Floor   uint64 // tombstones up to it are forgotten (S6)
	Sum     uint64
}

// Compare orders heads by (Inc, Version, Floor).
func (h Head) Compare(o Head) int {
	return cmp.Or(cmp.Compare(h.Inc, o.Inc), cmp.Compare(h.Version, o.Version), cmp.Compare(h.Floor, o.Floor))
}

// beyond reports whether no honest stream gets that far (G8).
func (h Head) beyond() bool {
	return h.Inc > maxCounter || h.Version > maxCounter || h.Floor > maxCounter
}

// Delta moves a replica of one stream forward: the records with versions in
// (From, To], of which this chunk holds those in (After, Upto]. It is exact at
// To and only there, so a replica applies it when its last chunk is in.
//
// A snapshot has From 0 and replaces all that the replica holds (S4).
//
// Invariants: From <= After <= Upto <= To; Floor <= To; a whole delta has
// After = From and Upto = To.
type Delta struct {
	// The stream.
	Network string // "" is the global scope
	Owner   NodeID // who wrote it, and nobody else

	// The step: from one version of the stream to another.
	From, To uint64 // versions
	Snapshot bool   // replaces all; From is 0

	// The head at To.
	Inc   uint64 // incarnation (S7)
	Floor uint64 // tombstones up to it are forgotten (S6)
	Sum   uint64 // checksum of the live content

	// What of it this chunk holds.
	After, Upto uint64   // versions
	Records     []Record // by version
}

// Head returns the head that a replica has once the delta is applied.
func (d *Delta) Head() Head { return Head{Inc: d.Inc, Version: d.To, Floor: d.Floor, Sum: d.Sum} }

// Whole reports whether d is not a chunk of a larger delta.
func (d *Delta) Whole() bool { return d.After == d.From && d.Upto == d.To }

// applies is the one predicate of S5, evaluated by senders and receivers
// alike: a delta from version `from` of incarnation inc fits a replica at h.
// It is inclusive on both sides.
func applies(h Head, inc, from uint64, snapshot bool) bool {
	if snapshot {
		return inc >= h.Inc
	}
	return inc == h.Inc && from <= h.Version
}

// servable is S3's condition for sending a delta rather than a snapshot: the
// sender at head h still has every tombstone above `from` of incarnation inc.
func servable(h Head, inc, from uint64) bool {
	return inc == h.Inc && from >= h.Floor && from <= h.Version
}

// mix64 is the finalizer of MurmurHash3: it spreads sums of counters.
func mix64(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// sum is the share of e in its stream's checksum.
func (e *Entry) sum() uint64 {
	return mix64(xxhash.Sum64String(e.data) + mix64(e.version<<16|uint64(e.keyLen)<<8|uint64(e.groupLen)))
}

// hash is the share of a stream in its table's hash.
func (h Head) hash(owner uint64) uint64 {
	return mix64(owner ^ mix64(h.Inc^mix64(h.Version^mix64(h.Floor^mix64(h.Sum)))))
}

func ownerHash(o NodeID) uint64 { return mix64(xxhash.Sum64String(string(o))) }

func (e *Entry) record() Record {
	return Record{Kind: e.Kind(), Key: e.Key(), Group: e.Group(), Body: e.Body(), Version: e.version, Deleted: e.deleted}
}

// size is the entry's share in quotas and chunk budgets, in bytes.
func (e *Entry) size() int { return len(e.data) + 16 }
