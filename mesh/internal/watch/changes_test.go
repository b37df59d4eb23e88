package watch

import (
	"fmt"
	"testing"

	"meshd/state"
)

// Hidden tasks are remembered for as long as their owner is.
func TestHiddenTasksAreForgotten(t *testing.T) {
	h := hiddenTasks{}
	for i := range 10 {
		h[fmt.Sprint("t", i)] = state.NodeID(fmt.Sprint("n", i%2))
	}
	h.prune(func(o state.NodeID) bool { return o == "n0" })
	if len(h) != 5 || h["t0"] != "n0" {
		t.Errorf("left: %v", h)
	}
}

// TestHiddenTasksAreBounded: N5. An owner that comes and goes with other tasks each
// time fills no memory: neither while it is away nor when it is back.
func TestHiddenTasksAreBounded(t *testing.T) {
	h := hiddenTasks{}
	for i := range 2 * maxHidden {
		h.hide(fmt.Sprint("t", i), "n0")
	}
	if len(h) > maxHidden {
		t.Errorf("%d hidden tasks are kept", len(h))
	}
	h.hide("t0", "n1") // known already: always room
	if h["t0"] != "n1" {
		t.Errorf("t0 is %q's", h["t0"])
	}
}
