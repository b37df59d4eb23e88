package state

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// The log is compared with a list that is searched from its beginning.
func TestVersionLog(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStream("a")
		var log versionLog
		var live []*Entry // by version
		version := uint64(0)
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			switch {
			case len(live) == 0 || rapid.IntRange(0, 2).Draw(rt, "what") > 0:
				version += uint64(rapid.IntRange(1, 3).Draw(rt, "gap"))
				e, _ := newEntry(s, Record{Kind: 99, Key: fmt.Sprint(version), Version: version})
				log.append(e)
				live = append(live, e)
			default:
				i := rapid.IntRange(0, len(live)-1).Draw(rt, "which")
				log.supersede(live[i])
				live = append(live[:i:i], live[i+1:]...)
			}
			if rapid.IntRange(0, 9).Draw(rt, "compact") == 0 {
				log.compact()
			}
			v := uint64(rapid.IntRange(0, int(version)+1).Draw(rt, "after"))
			var got, want []*Entry
			for i := log.after(v); i < len(log.entries); i++ {
				if !log.isSuperseded(i) {
					got = append(got, log.entries[i])
				}
			}
			for _, e := range live {
				if e.version > v {
					want = append(want, e)
				}
			}
			if fmt.Sprint(versions(got)) != fmt.Sprint(versions(want)) {
				rt.Fatalf("after %d the log has %v, want %v", v, versions(got), versions(want))
			}
			if log.len() != len(live) {
				rt.Fatalf("%d entries are counted, %d are there", log.len(), len(live))
			}
		}
	})
}

func versions(es []*Entry) (vs []uint64) {
	for _, e := range es {
		vs = append(vs, e.version)
	}
	return vs
}
