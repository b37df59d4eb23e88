package sim

import (
	"testing"
	"time"

	"meshd/gossip"
)

func TestOneChangeReachesAll(t *testing.T) {
	for _, static := range []bool{true, false} {
		w := New(Options{Seed: 1, Nodes: 25, Static: static})
		w.Start(0)
		w.Run(5 * time.Second)
		if !w.Equal() {
			t.Fatalf("static=%v: not equal after the start", static)
		}
		if err := w.Node(3).Commit(Endpoint("a", "web", 1)); err != nil {
			t.Fatal(err)
		}
		d, ok := w.Until(w.Equal, 100*time.Microsecond, 5*time.Second)
		var s gossip.Stats
		for _, n := range w.nodes {
			s.Malformed += n.Core.Stats.Malformed
			s.Refused += n.Core.Stats.Refused
		}
		t.Logf("static=%v: %v %v, %+v, events %d", static, d, ok, s, w.Events())
		if !ok || s.Malformed+s.Refused > 0 {
			t.Error("did not converge, or packets were malformed")
		}
	}
}

// TestNobodyWaitsForRepair: G3. Without loss the last of a hundred nodes has a change
// within 30 ms of virtual time, on any seed: those whom the push misses are told by
// their neighbours on the ring, long before tables are compared.
func TestNobodyWaitsForRepair(t *testing.T) {
	const bound = 30 * time.Millisecond
	var last time.Duration
	for seed := range uint64(6) {
		w := New(Options{Seed: seed, Nodes: 100, Static: true})
		w.Start(0)
		w.Run(5 * time.Second)
		if !w.Equal() {
			t.Fatalf("seed %d: not equal after the start", seed)
		}
		for change := range 15 {
			if err := w.Node(w.Rand().IntN(100)).Commit(Endpoint("a", "web", change+1)); err != nil {
				t.Fatal(err)
			}
			took, ok := w.Until(w.Equal, time.Millisecond, 5*time.Second)
			if last = max(last, took); !ok || took > bound {
				t.Errorf("seed %d, change %d: equal after %v", seed, change, took)
			}
			w.Run(time.Duration(w.Rand().IntN(200)) * time.Millisecond)
		}
	}
	t.Logf("the slowest of 90 changes: %v", last)
}
