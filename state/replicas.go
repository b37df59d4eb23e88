package state

import (
	"slices"
	"strings"
)

// This file owns what this node believes of other owners' streams: which heads it
// takes, which it has retired, and what it offers and asks for. How a delta changes a
// stream is in apply.go, who gives way to whom in room.go.

// replicas is the other owners' side of a table. It belongs to the table's
// goroutine.
type replicas struct {
	*streamSet
	retired map[NodeID]Head   // heads of streams that were dropped (S9)
	ownIncs map[NodeID]uint64 // incarnations by their owners' own word, where others said much more (S16)

	evicted    uint64 // streams dropped for lack of room, ever
	stageLooks uint64 // how often incomplete deltas were looked through for room
}

// maxOwnIncs bounds how many owners' words are kept.
const maxOwnIncs = 1024

// Heads returns the heads of the owners for which in returns true, sorted by
// owner, the ones that are kept and the retired ones included.
func (rs *replicas) Heads(in func(NodeID) bool) []OwnerHead {
	var hs []OwnerHead
	for o, s := range rs.streams {
		if s.head.Inc > 0 && in(o) {
			hs = append(hs, OwnerHead{Owner: o, Head: s.head, Kept: !s.offered})
		}
	}
	for o, h := range rs.retired {
		if in(o) {
			hs = append(hs, OwnerHead{Owner: o, Head: h, Retired: true})
		}
	}
	slices.SortFunc(hs, func(a, b OwnerHead) int { return strings.Compare(string(a.Owner), string(b.Owner)) })
	return hs
}

// HeadsIn is Heads for the owners in some of n buckets. Where there are many owners, it
// looks at no others.
func (rs *replicas) HeadsIn(n int, buckets []int) []OwnerHead {
	in := make(map[int]bool, len(buckets))
	for _, b := range buckets {
		in[b] = true
	}
	wanted := func(o NodeID) bool { return in[Bucket(o, n)] }
	if rs.places == nil || n > fineBuckets {
		return rs.Heads(wanted)
	}
	var hs []OwnerHead
	for fine, streams := range rs.places {
		if !in[fine&(n-1)] {
			continue
		}
		for _, s := range streams {
			if s.head.Inc > 0 {
				hs = append(hs, OwnerHead{Owner: s.owner, Head: s.head, Kept: !s.offered})
			}
		}
	}
	for o, h := range rs.retired {
		if wanted(o) {
			hs = append(hs, OwnerHead{Owner: o, Head: h, Retired: true})
		}
	}
	slices.SortFunc(hs, func(a, b OwnerHead) int { return strings.Compare(string(a.Owner), string(b.Owner)) })
	return hs
}

// Delta builds the next chunk of a stream for a replica that wants w, with at
// most budget bytes of records. It is nil if there is nothing to send.
func (rs *replicas) Delta(w Want, budget int) *Delta {
	s := rs.streams[w.Owner]
	if s == nil || !s.offered || s.head.Inc == 0 || s.head.Inc < w.Inc {
		return nil
	}
	if s.resync && s.status.Answers() { // of a dead owner, no other node may have the content
		return nil
	}
	if s.head.Inc == w.Inc && w.After > s.head.Version {
		return nil
	}
	return s.delta(rs.network, w, budget)
}

// Want returns what to ask a peer for whose head of the owner's stream is h,
// and whether there is anything to ask for.
func (rs *replicas) Want(o NodeID, h Head) (Want, bool) {
	if g, retired := rs.retired[o]; retired && h.Inc <= g.Inc || o == rs.self && !rs.yielded || h.Inc == 0 || h.beyond() ||
		!rs.acceptable(o, h.Inc) {
		return Want{}, false
	}
	s := rs.streams[o]
	if s == nil {
		return Want{Owner: o}, true
	}
	if s.stage != nil && s.stage.inc < h.Inc {
		s.stage = nil
		rs.recount(s)
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

// Retire drops an owner's stream after D2 and remembers its head, so that no
// peer can bring it back (S9). Readmit forgets that, when the owner itself is
// heard of again.
func (rs *replicas) Retire(o NodeID) {
	s := rs.streams[o]
	if s == nil || o == rs.self {
		return
	}
	rs.SetOffered(o, false)
	head := s.head
	rs.empty(s)
	s.stage = nil
	rs.account(s)
	rs.discard(s)
	if head.Inc > 0 {
		rs.retired[o] = head
	}
}

// Readmit forgets a retired head.
func (rs *replicas) Readmit(o NodeID) { delete(rs.retired, o) }

// RetiredOwners returns the number of owners whose stream was retired.
func (rs *replicas) RetiredOwners() int { return len(rs.retired) }

// acceptable reports whether an incarnation that a peer says an owner has
// reached can be true, by what is held of the owner here (S16). It leaves twice
// the room that the owner itself believes, so that one who must go above a
// claim that it believed is always accepted. For an owner that does not live
// there is no such measure, and no one to decide a difference: all replicas must
// come to hold the same, the highest. The owner's word counts when it is back.
func (rs *replicas) acceptable(o NodeID, inc uint64) bool {
	if inc > maxCounter {
		return false
	}
	if !rs.live[o].Answers() {
		return true
	}
	if word, ok := rs.ownIncs[o]; ok {
		return inc <= word+incarnationStep
	}
	known := rs.retired[o].Inc
	if s := rs.streams[o]; s != nil {
		known = max(known, s.head.Inc)
	}
	return known == 0 || inc <= known+2*incarnationStep
}

// OwnerSays takes an owner's own word for the head of its stream, and reports
// whether that changed anything: what is held here so far above it that its
// owner could not believe it is none of the owner's, and is dropped, so that no
// forged stream outlasts its author (S16).
func (rs *replicas) OwnerSays(o NodeID, h Head) bool {
	if o == rs.self || h.Inc == 0 || h.beyond() {
		return false
	}
	if _, ok := rs.ownIncs[o]; ok {
		rs.ownIncs[o] = h.Inc
	}
	held := rs.retired[o].Inc
	if s := rs.streams[o]; s != nil {
		held = max(held, s.head.Inc)
		if s.stage != nil {
			held = max(held, s.stage.inc)
		}
	}
	if held <= h.Inc+incarnationStep {
		return false
	}
	if len(rs.ownIncs) >= maxOwnIncs {
		clear(rs.ownIncs)
	}
	rs.ownIncs[o] = h.Inc
	rs.Retire(o)
	rs.Readmit(o)
	return true
}
