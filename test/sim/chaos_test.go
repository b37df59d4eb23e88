package sim

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

var (
	runs = flag.Int("n", 0, "chaos runs from -seed on; 0: the fixed set and some fresh ones")
	seed = flag.Uint64("seed", 1, "of the first chaos run")
)

func TestChaos(t *testing.T) {
	first, n := *seed, *runs
	if n == 0 {
		first, n = 1, 30
	}
	var worst time.Duration
	for s := first; s < first+uint64(n); s++ {
		worst = max(worst, chaosOne(t, s))
	}
	t.Logf("%d runs from seed %d: equal at most %v after the end of the faults", n, first, worst)
}

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
