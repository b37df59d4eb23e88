package state

import "slices"

// This file owns the order of versions in one stream.

// versionLog is the entries of one stream in the order of their versions. Entries
// that a later one supersedes stay until they are half of it.
//
// Invariants: versions grow strictly; superseded has a bit for each of entries
// up to its length, and stale and staleBytes count those that are set.
type versionLog struct {
	entries    []*Entry
	superseded []uint64 // a bit set; as long as it has to be
	stale      int      // superseded entries
	staleBytes int      // their size
}

// newVersionLog returns an empty log with room for n entries.
func newVersionLog(n int) versionLog { return versionLog{entries: make([]*Entry, 0, n)} }

// len returns how many entries the log has that are not superseded.
func (l *versionLog) len() int { return len(l.entries) - l.stale }

// append adds an entry, which has the highest version of all.
func (l *versionLog) append(e *Entry) { l.entries = append(l.entries, e) }

// after returns the index of the first entry with a version above v.
func (l *versionLog) after(v uint64) int {
	i, _ := slices.BinarySearchFunc(l.entries, v, func(e *Entry, v uint64) int {
		if e.version <= v {
			return -1
		}
		return 1
	})
	return i
}

// supersede marks an entry of the log as superseded.
func (l *versionLog) supersede(e *Entry) {
	i := l.after(e.version) - 1
	for len(l.superseded) <= i/64 {
		l.superseded = append(l.superseded, 0)
	}
	l.superseded[i/64] |= 1 << (i % 64)
	l.stale++
	l.staleBytes += e.size()
}

// isSuperseded reports whether the i-th entry is superseded.
func (l *versionLog) isSuperseded(i int) bool {
	return i/64 < len(l.superseded) && l.superseded[i/64]&(1<<(i%64)) != 0
}

// wasteful reports whether superseded entries take so much, beside live bytes of
// records that are not, that they are to be dropped: no quota counts them.
func (l *versionLog) wasteful(live int) bool {
	return l.stale > len(l.entries)/2 && l.stale > 16 || l.staleBytes > max(live, MaxBody)
}

// compact drops the superseded entries.
func (l *versionLog) compact() {
	kept := make([]*Entry, 0, l.len()+1)
	for i, e := range l.entries {
		if !l.isSuperseded(i) {
			kept = append(kept, e)
		}
	}
	*l = versionLog{entries: kept}
}
