package state

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"pgregory.net/rapid"
)

// What the laws compare and check of one stream.

// content is the canonical text of what a replica holds of a stream: the live
// records, and the tombstones above the floor.
func content(s *stream) string {
	var b strings.Builder
	var es []*Entry
	for _, sl := range s.live {
		es = append(es, sl.current)
	}
	for _, e := range s.dead {
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b *Entry) int { return int(a.version) - int(b.version) })
	for _, e := range es {
		fmt.Fprintf(&b, "%d %v %q %d %d\n", e.version, e.deleted, e.data, e.keyLen, e.groupLen)
	}
	return b.String()
}

// checkStream checks the bookkeeping of one stream.
func checkStream(t rapid.TB, s *stream) {
	bytes, sum := 0, uint64(0)
	for key, sl := range s.live {
		e := sl.current
		bytes, sum = bytes+e.size(), sum+e.sum()
		if key != e.mapKey() || unsafe.StringData(key) != unsafe.StringData(e.data) {
			t.Fatalf("S14: the key of %q is text of its own, or of a former entry", e.mapKey())
		}
	}
	for _, e := range s.dead {
		bytes += e.size()
		if e.version <= s.head.Floor {
			t.Fatalf("S6: tombstone %d at floor %d", e.version, s.head.Floor)
		}
	}
	stale := 0
	for i, e := range s.log.entries {
		if s.log.isSuperseded(i) {
			stale++
		} else if s.find(e.Kind(), e.Key()) != e {
			t.Fatalf("version %d is in the log and not current", e.version)
		}
		if i > 0 && s.log.entries[i-1].version >= e.version {
			t.Fatalf("log out of order at %d", i)
		}
	}
	if stale != s.log.stale || s.log.len() != len(s.live)+len(s.dead) || bytes != s.bytes || sum != s.head.Sum {
		t.Fatalf("bookkeeping: stale %d/%d, log %d, live %d, dead %d, bytes %d/%d, sum %x/%x",
			s.log.stale, stale, s.log.len(), len(s.live), len(s.dead), s.bytes, bytes, s.head.Sum, sum)
	}
}
