package state

import "errors"

// This file owns the bounds on what may be stated, and the errors about them.

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
	return Limits{Entries: 200_000, Bytes: 64 << 20, Owners: 200_000, Tombstones: 512}.withTotals()
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
