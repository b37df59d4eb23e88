package mesh

import (
	"fmt"
	"slices"
	"testing"

	"meshd/lb/hostcheck"
)

// Every sandbox has its turn, also while something is found in many of them, and those
// in which it was found are looked into each time.
func TestEverySandboxIsLookedInto(t *testing.T) {
	var boxes []*box
	l := boxLooks{found: map[string][]hostcheck.Finding{}}
	for i := range 100 {
		b := &box{name: fmt.Sprintf("box%03d", i)}
		boxes = append(boxes, b)
		if i < 50 {
			l.found[b.name] = []hostcheck.Finding{{Code: hostcheck.FirewallOutput}}
		}
	}
	seen := map[string]int{}
	for range 100/boxesPerTurn + 1 {
		again, turn := l.next(boxes, boxesPerTurn)
		if len(again) != boxesFound || len(turn) != boxesPerTurn || again[0] != boxes[0] {
			t.Fatalf("a turn has %d and %d sandboxes", len(again), len(turn))
		}
		for _, b := range slices.Concat(again, turn) {
			seen[b.name]++
		}
		l.last = turn[len(turn)-1].name
	}
	if len(seen) != len(boxes) {
		t.Errorf("%d of %d sandboxes had a turn", len(seen), len(boxes))
	}
	if got := l.all(); len(got) != toldBoxes+1 ||
		got[toldBoxes].What != "there is something against meshd inside of 40 more sandboxes" {
		t.Errorf("told is %+v", got)
	}
	if again, turn := l.next(nil, boxesPerTurn); len(again)+len(turn) > 0 {
		t.Error("where there is no sandbox there is a turn")
	}
}
