package state

import (
	"fmt"
	"slices"
)

// This file owns how a delta from a peer becomes the content of a replica (S3–S5).

// Result says what a delta did to the table.
type Result uint8

// The results of Apply.
const (
	Ignored Result = iota // old news
	Applied               // the stream moved forward
	Staged                // a chunk is kept; Want asks for the next
	Gap                   // the delta starts after what we hold: pull
	Refused               // over quota or contradictory; err says why
)

// Apply merges a delta from a peer into the stream of another owner. It never
// changes this node's own stream (S1); see SelfAhead for what peers hold of it.
func (rs *replicas) Apply(d *Delta) (Result, error) {
	if err := d.check(); err != nil {
		return Refused, err
	}
	if d.Owner == rs.self && !rs.yielded {
		return Ignored, nil
	}
	if g, retired := rs.retired[d.Owner]; retired {
		if d.Inc <= g.Inc {
			return Ignored, nil // S9: it does not come back from the dead
		}
	}
	if !rs.acceptable(d.Owner, d.Inc) {
		return Refused, fmt.Errorf("network %q owner %q: %w: incarnation %d is too far above what is known", rs.network,
			d.Owner, errChunk, d.Inc)
	}
	s := rs.streams[d.Owner]
	if s == nil {
		if !applies(Head{}, d.Inc, d.From, d.Snapshot) || d.After != d.From {
			return Gap, nil
		}
		if err := rs.admitOwner(d.Owner); err != nil {
			return Refused, err
		}
		s = newStream(d.Owner)
		s.status = rs.live[d.Owner]
	}
	defer rs.recount(s)
	return rs.merge(s, d)
}

// merge moves a stream by a delta.
func (rs *replicas) merge(s *stream, d *Delta) (Result, error) {
	c := d.Head().Compare(s.head)
	switch {
	case c < 0, c == 0 && !(s.resync && d.Snapshot):
		return Ignored, nil // S2
	case d.Whole() && applies(s.head, d.Inc, d.From, d.Snapshot):
		return rs.applyWhole(s, d, d.Records)
	case s.stage != nil && s.stage.inc == d.Inc && d.To >= s.stage.to && d.After <= s.stage.upto:
		if s.stage.continuedBy(d.Head()) {
			return rs.extend(s, d)
		}
		s.stage = nil // its sender has forgotten tombstones that we need
	}
	if d.After != d.From || !applies(s.head, d.Inc, d.From, d.Snapshot) {
		return Gap, nil
	}
	s.stage = &stage{inc: d.Inc, from: d.From, snapshot: d.Snapshot, began: d.To, to: d.To, upto: d.After}
	return rs.extend(s, d)
}

// extend adds a chunk to the stage and applies the delta when it is complete.
func (rs *replicas) extend(s *stream, d *Delta) (Result, error) {
	st := s.stage
	if d.Upto <= st.upto && d.Upto < d.To {
		return Ignored, nil
	}
	for _, r := range d.Records {
		if r.Version > st.upto {
			st.records = append(st.records, r)
			st.bytes += r.size()
		}
	}
	st.at = rs.index.clock.now
	if !rs.stageRoom(s, st.bytes-s.counted.staged) {
		s.stage = nil
		return Refused, fmt.Errorf("network %q owner %q: %w: too many incomplete deltas", rs.network, s.owner, ErrQuota)
	}
	if err := rs.checkOwner(s, len(st.records), st.bytes); err != nil {
		s.stage = nil
		return Refused, err
	}
	st.upto, st.to = d.Upto, d.To
	if d.Upto < d.To {
		return Staged, nil
	}
	s.stage = nil
	if !applies(s.head, st.inc, st.from, st.snapshot) {
		return Gap, nil // the replica has moved to another incarnation meanwhile
	}
	whole := *d
	whole.From, whole.After, whole.Snapshot = st.from, st.from, st.snapshot
	return rs.applyWhole(s, &whole, newest(st.records))
}

// newest drops the records that a later one of the same key supersedes: the
// owner went on while a delta came in chunks.
func newest(records []Record) []Record {
	last := make(map[string]uint64, len(records))
	for i := range records {
		last[records[i].mapKey()] = records[i].Version
	}
	return slices.DeleteFunc(records, func(r Record) bool { return last[r.mapKey()] != r.Version })
}

func (r *Record) mapKey() string { return string([]byte{byte(r.Kind)}) + r.Key }

// check refuses a delta that no correct node sends.
func (d *Delta) check() error {
	switch {
	case CheckNode(string(d.Owner)) != nil || len(d.Network) > MaxLabel:
		return fmt.Errorf("%w: bad owner or network name", errChunk)
	case d.Inc == 0 || d.From > d.After || d.After > d.Upto || d.Upto > d.To || d.Floor > d.To || d.Head().beyond():
		return fmt.Errorf("%w: bounds", errChunk)
	case d.Snapshot && d.From > 0:
		return fmt.Errorf("%w: a snapshot that does not start at 0", errChunk)
	case !d.Snapshot && d.After < d.Floor:
		return fmt.Errorf("%w: starts below its own floor", errChunk) // S5
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

// applyWhole applies a complete delta. A replica changes here and nowhere else.
func (rs *replicas) applyWhole(s *stream, d *Delta, records []Record) (Result, error) {
	if err := rs.checkQuota(s, d, records); err != nil {
		return Refused, err
	}
	es := make([]*Entry, len(records))
	for i, r := range records {
		es[i] = rs.entry(s, r)
	}
	if s.sumWith(es, d.Snapshot) != d.Sum {
		return rs.mismatch(s, d)
	}
	rs.touch(s, func() {
		if d.Snapshot {
			rs.replace(s, es)
			s.head.Floor = 0
		} else {
			for _, e := range es {
				if e.version > s.head.Version {
					rs.put(s, e)
				}
			}
		}
		s.head.Inc, s.head.Version = d.Inc, d.To
		s.raiseFloor(d.Floor)
	})
	s.resync = false
	delete(rs.retired, s.owner)
	if st := s.stage; st != nil && (st.inc < d.Inc || st.inc == d.Inc && st.to <= d.To) {
		s.stage = nil
	}
	return Applied, nil
}

// sumWith is the checksum that the stream would have with es applied.
func (s *stream) sumWith(es []*Entry, snapshot bool) uint64 {
	var sum uint64
	if !snapshot {
		sum = s.head.Sum
	}
	for _, e := range es {
		if !snapshot {
			if e.version <= s.head.Version {
				continue
			}
			if old := s.live[e.mapKey()]; old != nil {
				sum -= old.current.sum()
			}
		}
		if !e.deleted {
			sum += e.sum()
		}
	}
	return sum
}

// mismatch refuses a delta whose records do not give the content that its owner had:
// readers must never see a mixture of two lives (S4, S7). If d is no snapshot, the
// content held here may be the wrong one, so the whole stream is asked for.
func (rs *replicas) mismatch(s *stream, d *Delta) (Result, error) {
	s.stage = nil
	err := fmt.Errorf("network %q owner %q: content differs at version %d of incarnation %d", rs.network, s.owner, d.To,
		d.Inc)
	if d.Snapshot {
		return Refused, err
	}
	s.resync = true
	return Gap, fmt.Errorf("%w: taking its snapshot", err)
}

// size is the share of r in quotas, as Entry.size.
func (r *Record) size() int { return 1 + len(r.Key) + len(r.Group) + len(r.Body) + 16 }

// checkQuota guards against an owner that states too much (S13).
func (rs *replicas) checkQuota(s *stream, d *Delta, records []Record) error {
	n, b := len(records), 0
	for i := range records {
		b += records[i].size()
	}
	if d.Snapshot {
		return rs.checkRoom(s, n, b)
	}
	n, b = n+len(s.live)+len(s.dead), b+s.bytes
	if rs.checkRoom(s, n, b) == nil {
		return nil
	}
	for i := range records { // those that replace another were counted twice
		if old := s.find(records[i].Kind, records[i].Key); old != nil {
			n, b = n-1, b-old.size()
		}
	}
	return rs.checkRoom(s, n, b)
}

// checkRoom is checkOwner, and the bounds on all owners together.
func (rs *replicas) checkRoom(s *stream, n, b int) error {
	if err := rs.checkOwner(s, n, b); err != nil {
		return err
	}
	return rs.makeRoom(s, n, b)
}

// checkOwner allows twice what an owner may state: the owner enforces the limit, a
// replica only guards against one that does not.
func (rs *replicas) checkOwner(s *stream, n, b int) error {
	if n > rs.limits.Entries*2+rs.limits.Tombstones || b > rs.limits.Bytes*2 {
		return fmt.Errorf("network %q owner %q: %w: at most %d records and %d bytes", rs.network, s.owner, ErrQuota,
			rs.limits.Entries, rs.limits.Bytes)
	}
	return nil
}
