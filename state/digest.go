package state

// This file owns the summaries by which two nodes find what differs.

// digest is the hash of the streams that a table offers, by owner hash: equal
// digests mean equal heads and content (G4). It belongs to the table's goroutine.
type digest struct {
	fine [fineBuckets]uint64 // sums of Head.hash
}

const fineBuckets = 256 // a power of two; a summary folds them

// count adds a stream's head to the digest, or takes it out with sign -1. Streams
// that are not offered, and those without a head, are not in it.
func (d *digest) count(s *stream, sign int) {
	if s.offered && s.head.Inc > 0 {
		d.fine[s.hash&(fineBuckets-1)] += uint64(sign) * s.head.hash(s.hash)
	}
}

// Hash is the 8-byte summary that digest repair compares first (G4): equal
// hashes mean equal offered streams, heads and content.
func (d *digest) Hash() uint64 {
	var h uint64
	for _, f := range d.fine {
		h += f
	}
	return h
}

// Buckets folds the hash to n buckets, n a power of two up to 256.
func (d *digest) Buckets(n int) []uint64 {
	out := make([]uint64, n)
	for i, f := range d.fine {
		out[i&(n-1)] += f
	}
	return out
}

// HashWith returns the hash of a table that has these heads in some of n buckets,
// and in the others what this one has: what a peer's is, if it said so.
func (d *digest) HashWith(n int, buckets []int, heads []OwnerHead) uint64 {
	h, in := d.Hash(), make([]bool, n)
	own := d.Buckets(n)
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

// streamPlaces is the streams of a table by the bucket of their owners among
// fineBuckets, so that the heads of one bucket are found without a look at all. It is nil
// where there are few streams, which costs no memory then.
type streamPlaces [][]*stream

// manyStreams is from how many streams on a table keeps them by bucket.
const manyStreams = 256

// add adds a stream, which all has already.
func (p *streamPlaces) add(s *stream, all map[NodeID]*stream) {
	switch {
	case *p == nil && len(all) < manyStreams:
		return
	case *p == nil:
		*p = make(streamPlaces, fineBuckets)
		for _, o := range all {
			p.put(o)
		}
	case s.place == 0:
		p.put(s)
	}
}

func (p *streamPlaces) put(s *stream) {
	list := &(*p)[s.hash&(fineBuckets-1)]
	*list = append(*list, s)
	s.place = len(*list)
}

// remove removes a stream.
func (p *streamPlaces) remove(s *stream) {
	if s.place == 0 {
		return
	}
	list := &(*p)[s.hash&(fineBuckets-1)]
	last := len(*list) - 1
	moved := (*list)[last]
	(*list)[s.place-1], moved.place = moved, s.place
	(*list)[last] = nil
	*list, s.place = (*list)[:last], 0
}
