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
