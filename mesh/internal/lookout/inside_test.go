package lookout

import (
	"fmt"
	"slices"
	"testing"

	"meshd/lb/hostcheck"
)

// Every sandbox has its turn, also while something is found in many of them, and those
// in which it was found are looked into each time.
func TestEverySandboxIsLookedInto(t *testing.T) {
	var names []string
	l := insideLooks{found: map[string][]hostcheck.Finding{}}
	for i := range 100 {
		b := fmt.Sprintf("box%03d", i)
		names = append(names, b)
		if i < 50 {
			l.found[b] = []hostcheck.Finding{{Code: hostcheck.FirewallOutput}}
		}
	}
	seen := map[string]int{}
	for range 100/sandboxesPerTurn + 1 {
		again, turn := l.next(names, sandboxesPerTurn)
		if len(again) != sandboxesFound || len(turn) != sandboxesPerTurn || again[0] != names[0] {
			t.Fatalf("a turn has %d and %d sandboxes", len(again), len(turn))
		}
		for _, b := range slices.Concat(again, turn) {
			seen[b]++
		}
		l.last = turn[len(turn)-1]
	}
	if len(seen) != len(names) {
		t.Errorf("%d of %d sandboxes had a turn", len(seen), len(names))
	}
	if got := l.all(); len(got) != sandboxesShown+1 ||
		got[sandboxesShown].What != "there is something against meshd inside of 40 more sandboxes" {
		t.Errorf("told is %+v", got)
	}
	if again, turn := l.next(nil, sandboxesPerTurn); len(again)+len(turn) > 0 {
		t.Error("where there is no sandbox there is a turn")
	}
}
