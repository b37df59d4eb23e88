package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file owns who gives way when the bounds on all owners together are
// reached (S19).

// admitOwner returns nil if the table has room for one more owner's stream. The
// stream of an owner that does not live gives way to one that does, and to no other,
// so that made-up owners keep no honest one out.
func (rs *replicas) admitOwner(o NodeID) error {
	if len(rs.streams) < rs.limits.Owners || rs.live[o] != Dead && rs.evict(o) {
		return nil
	}
	return fmt.Errorf("network %q: %w: %d owners", rs.network, ErrQuota, rs.limits.Owners)
}

// evict drops the stream of an owner other than o that does not live, and reports
// whether there was one. Owners of which this node knows nothing go first.
func (rs *replicas) evict(o NodeID) bool {
	var victim *stream
	for name, s := range rs.streams {
		if name == o || name == rs.self || s.status != Dead {
			continue
		}
		_, known := rs.live[name]
		if victim = s; !known {
			break
		}
	}
	if victim == nil {
		return false
	}
	rs.Retire(victim.owner)
	rs.Readmit(victim.owner) // it may come back when there is room
	rs.evicted++
	return true
}

// makeRoom returns nil if a stream may grow to n records and b bytes by what the
// table and the store may hold in all (S19). Streams of owners that do not live
// give way if that makes enough room, and stay if it would not.
func (rs *replicas) makeRoom(s *stream, n, b int) error {
	for searched := false; ; searched = true {
		grow := usage{records: n - s.counted.records, bytes: b - s.counted.bytes}
		if grow.records <= 0 && grow.bytes <= 0 || rs.hasRoomFor(grow) {
			return nil
		}
		if s.status != Dead && !searched {
			after := grow
			after.add(rs.givesWay(s.owner), -1)
			searched = rs.hasRoomFor(after)
		}
		if s.status == Dead || !searched || !rs.evict(s.owner) {
			return fmt.Errorf("network %q owner %q: %w: the tables are full", rs.network, s.owner, ErrQuota)
		}
	}
}

// hasRoomFor reports whether the table and the store have room for so much more.
func (rs *replicas) hasRoomFor(more usage) bool {
	l := &rs.limits
	return rs.use.records+more.records <= l.TableRecords && rs.use.bytes+more.bytes <= l.TableBytes &&
		rs.total.records+more.records <= l.StoreRecords && rs.total.bytes+more.bytes <= l.StoreBytes
}

// givesWay returns what evict could free for an owner.
func (rs *replicas) givesWay(o NodeID) (u usage) {
	for name, s := range rs.streams {
		if name != o && name != rs.self && s.status == Dead {
			u.add(s.counted, 1)
		}
	}
	return u
}

// staleStage is how long a delta that does not go on keeps its place when
// others need it.
const staleStage = 30 * time.Second

// stageRoom makes room for n more bytes of s's incomplete delta and reports whether
// there is room. Deltas of owners that do not live go first, then those that make no
// progress, then the largest. Of the first two sorts an eighth of all memory is freed
// at a time, so that not every chunk has to search.
func (rs *replicas) stageRoom(s *stream, n int) bool {
	if rs.total.staged+n <= rs.limits.StageBytes {
		return true
	}
	rs.stageLooks++
	var idle, busy []*stream
	for _, o := range rs.streams {
		switch {
		case o == s || o.stage == nil:
		case rs.idleRank(o) > 0:
			idle = append(idle, o)
		default:
			busy = append(busy, o)
		}
	}
	rs.dropStages(idle, rs.limits.StageBytes/8*7-n)
	rs.dropStages(busy, rs.limits.StageBytes-n)
	return rs.total.staged+n <= rs.limits.StageBytes
}

// dropStages drops incomplete deltas until no more than most bytes are left.
func (rs *replicas) dropStages(of []*stream, most int) {
	if rs.total.staged <= most {
		return
	}
	slices.SortFunc(of, rs.compareIdle)
	for _, o := range of {
		if rs.total.staged <= most {
			return
		}
		o.stage = nil
		rs.recount(o)
	}
}

// idleRank ranks incomplete deltas by how little they are missed.
func (rs *replicas) idleRank(s *stream) int {
	switch {
	case s.status == Dead:
		return 2
	case rs.index.clock.now-s.stage.at > staleStage:
		return 1
	}
	return 0
}

// compareIdle orders streams with incomplete deltas, those that go first first.
func (rs *replicas) compareIdle(a, b *stream) int {
	return cmp.Or(cmp.Compare(rs.idleRank(b), rs.idleRank(a)), cmp.Compare(b.stage.bytes, a.stage.bytes),
		strings.Compare(string(a.owner), string(b.owner)))
}
