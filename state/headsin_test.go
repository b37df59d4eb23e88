package state

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestHeadsIn: as owners come and go, the heads of some buckets are those that a look at
// all finds.
func TestHeadsIn(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	store := NewStore("self", 1, DefaultLimits(), new(testClock))
	table := store.Global()
	for step := range 4 * manyStreams {
		owner := NodeID(fmt.Sprint("n", rng.IntN(2*manyStreams)))
		if _, ok := table.Head(owner); ok && rng.IntN(3) == 0 {
			table.Retire(owner)
			if rng.IntN(2) == 0 {
				table.Readmit(owner)
			}
		} else if !ok {
			table.Readmit(owner)
			d := Delta{Owner: owner, Inc: uint64(step) + 1, To: 1, Upto: 1, Floor: 1, Snapshot: true}
			if r, err := table.Apply(&d); r != Applied {
				t.Fatal(r, err)
			}
		}
		n := 1 << rng.IntN(9)
		buckets := []int{rng.IntN(n), rng.IntN(n)}
		want := table.Heads(func(o NodeID) bool { return slices.Contains(buckets, Bucket(o, n)) })
		if got := table.HeadsIn(n, buckets); !slices.Equal(got, want) {
			t.Fatalf("step %d, %d of %d buckets: %d heads, should be %d", step, len(buckets), n, len(got), len(want))
		}
	}
	if table.places == nil {
		t.Error("there were never many streams: this test shows nothing")
	}
}
