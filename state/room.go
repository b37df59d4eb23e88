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

// admitOwner reports whether the table has room for one more owner's stream.
// What nobody answers for makes room for an owner that lives, and for nobody
// else: made-up owners keep no honest one out.
func (rs *replicas) admitOwner(o NodeID) error {
	if len(rs.streams) < rs.limits.Owners || rs.live[o] != Dead && rs.evict(o) {
		return nil
	}
	return fmt.Errorf("network %q: %w: %d owners", rs.network, ErrQuota, rs.limits.Owners)
}

// evict drops the stream of an owner that does not live, not o's, and reports
// whether there was one; those of whom nothing is known go first.
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

// room reports whether a stream may grow to n records and b bytes, by what the
// table and the store may hold in all (S19). Streams of owners that do not live
// give way if that makes room enough, and stay where it would not.
func (rs *replicas) makeRoom(s *stream, n, b int) error {
	for looked := false; ; looked = true {
		grow := usage{records: n - s.counted.records, bytes: b - s.counted.bytes}
		if grow.records <= 0 && grow.bytes <= 0 || rs.hasRoomFor(grow) {
			return nil
		}
		if s.status != Dead && !looked {
			spared := grow
			spared.add(rs.givesWay(s.owner), -1)
			looked = rs.hasRoomFor(spared)
		}
		if s.status == Dead || !looked || !rs.evict(s.owner) {
			return fmt.Errorf("network %q owner %q: %w: the tables are full", rs.network, s.owner, ErrQuota)
		}
	}
}

// fits reports whether the table and the store have room for so much more.
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

// stageRoom makes room for n more bytes of s's incomplete delta: the others'
// that nobody answers for go first, then those that stand still, then the
// largest. It reports whether there is room. Of those that nobody misses an
// eighth of all goes at a time, so that not each chunk has to look for some.
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

// idleness says how little an incomplete delta is missed.
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
