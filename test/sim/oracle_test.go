package sim

import (
	"testing"
	"time"
)

// TestExpeditePostponesNothing: a node that is met by a packet tells its members
// of each other sooner, never later. It once drew the moment anew, up to 800 ms
// ahead, so that a mesh that started at once took the longer to be equal the more
// its nodes met by themselves.
func TestExpeditePostponesNothing(t *testing.T) {
	w := New(Options{Seed: 1, Nodes: 25})
	w.Start(0)
	before := map[pair]time.Duration{}
	for p, due := range w.oracle.due {
		before[p] = due.at
	}
	if len(before) == 0 {
		t.Fatal("nobody is about to learn of anybody")
	}
	for i := range w.nodes {
		w.oracle.expedite(int32(i))
	}
	sooner := 0
	for p, at := range before {
		switch due := w.oracle.due[p]; {
		case due.at > at:
			t.Errorf("%d learns of %d at %v instead of %v", p.from, p.to, due.at, at)
		case due.at < at:
			sooner++
		}
	}
	if sooner == 0 {
		t.Error("nothing was brought forward")
	}
}
