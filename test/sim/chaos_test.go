package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	runs = flag.Int("n", 0, "chaos runs from -seed on; 0: the fixed set and some fresh ones")
	seed = flag.Uint64("seed", 1, "of the first chaos run")
)

// TestChaos runs the seeds that it is told, or the fixed set and some fresh
// ones. The seed of a failure is printed; it repeats the run exactly.
func TestChaos(t *testing.T) {
	seeds := make([]uint64, 0, *runs)
	for k := range *runs {
		seeds = append(seeds, *seed+uint64(k))
	}
	if len(seeds) == 0 {
		seeds = append(seeds, regressions...)
		for range 10 {
			seeds = append(seeds, rand.Uint64()>>32)
		}
	}
	var worst time.Duration
	for _, s := range seeds {
		worst = max(worst, chaosOne(t, s))
	}
	t.Logf("%d runs: equal at most %v after the end of the faults", len(seeds), worst)
}

// regressions are seeds that found something once.
var regressions = []uint64{1, 2, 3, 4, 199, 1049, 1105, 1385, 1410, 1493, 1565, 2265, 3128, 7235, 20081, 20193, 700070}

// chaosOne runs a seed and says how to repeat it if it fails.
func chaosOne(t *testing.T, s uint64) time.Duration {
	t.Helper()
	c := NewChaos(s)
	if bad := c.Run(); len(bad) > 0 {
		if testing.Verbose() {
			fmt.Println(c)
		}
		for _, b := range bad {
			t.Errorf("seed %d: %s", s, b)
		}
		t.Errorf("repeat with: make chaos N=1 SEED=%d", s)
	}
	return c.Equal
}

// TestReplay: the same seed gives the same run, event for event, ten times.
func TestReplay(t *testing.T) {
	var first uint64
	for i := range 10 {
		c := NewChaos(77)
		c.Run()
		if i == 0 {
			first = c.World.Trace()
		} else if got := c.World.Trace(); got != first {
			t.Fatalf("G10: run %d of seed 77 has trace %x, the first %x", i, got, first)
		}
	}
	c := NewChaos(78)
	if c.Run(); c.World.Trace() == first {
		t.Error("another seed gave the same run")
	}
}

// TestFailureReplays: a run that fails by design, because a partition is never
// healed, fails ten times in the same way: the checker sees it, and its seed
// is all that is needed to repeat it.
func TestFailureReplays(t *testing.T) {
	var first string
	for i := range 10 {
		c := NewChaos(101)
		c.Sabotage = func(w *World) {
			w.Partition(func(i int) int { return i % 2 })
			n := w.Node(0)
			if !n.Up() {
				n.Start()
			}
			n.must(n.Commit(Endpoint("hidden", "svc0", 1)))
		}
		got := fmt.Sprint(c.Run(), c.World.Trace())
		if len(c.Check.Violations) == 0 {
			t.Fatal("the checker does not see a partition that does not heal")
		}
		if i == 0 {
			first = got
		} else if got != first {
			t.Fatalf("G10: run %d:\n%s\nthe first:\n%s", i, got, first)
		}
	}
}
