package state

import (
	"fmt"
	"strings"
	"testing"
)

// TestWhatIsGoneTakesNoMemory covers S19: the bounds are on what a stream holds, so
// it holds no more than is counted, however its owner makes its records go.
func TestWhatIsGoneTakesNoMemory(t *testing.T) {
	t.Parallel()
	const most = 1000
	body := strings.Repeat("x", 1000)
	for _, forgotten := range []bool{false, true} { // that they are gone
		s := newStream("a")
		version := uint64(0)
		put := func(i int, deleted bool) {
			version++
			r := Record{Kind: 99, Key: fmt.Sprint("k", i), Body: body, Version: version, Deleted: deleted}
			if deleted {
				r.Body = ""
			}
			e, err := newEntry(s, r)
			if err != nil {
				t.Fatal(err)
			}
			s.put(e)
		}
		for i := range most {
			put(i, false)
		}
		for i := range most - 2 {
			put(i, true)
		}
		if forgotten {
			s.raiseFloor(version)
		}
		held := 0
		for _, e := range s.log.entries {
			held += e.size()
		}
		if held > 2*s.bytes+2*MaxBody {
			t.Errorf("forgotten %v: %d bytes are held, and %d are counted", forgotten, held, s.bytes)
		}
	}
}
