package mesh_test

import (
	"fmt"
	"testing"

	"meshd/mesh/config"
	"meshd/mesh/control"
)

// Once a change is said to be spread, the other nodes answer with it.
func TestSpread(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	b := start(t, config.Config{Node: "b", Join: []string{a.addr()}})
	c := start(t, config.Config{Node: "c", Join: []string{a.addr()}})
	spread := func(n *node, network string, total int) {
		t.Helper()
		eventually(t, func() error {
			s, err := n.Spread(t.Context(), control.SpreadRequest{Network: network})
			if err != nil || s.OK != s.Total || s.Total != total || len(s.Results) != total {
				return fmt.Errorf("spread of %q: %+v, %w", network, s, err)
			}
			return nil
		})
	}
	spread(a, "", 3)
	a.network("net", "10.96.0.0/16")
	spread(a, "net", 3)
	for _, n := range []*node{b, c} {
		if all, err := n.Networks(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("spread, and another node knows %v, %v", all, err)
		}
	}
	for i, n := range []*node{b, c, a} {
		n.task("net", "web", fmt.Sprintf("web-%d", i), fmt.Sprintf("10.1.0.%d", i+1))
		spread(n, "net", 3)
		for _, other := range []*node{b, c, a}[:i+1] {
			if got := other.tasks("net", "web"); len(got) != i+1 {
				t.Errorf("spread to all, and one of those who take part knows %v, want %d", got, i+1)
			}
		}
	}
	for i, n := range []*node{b, c, a} {
		if _, err := n.RemoveTask(t.Context(), control.TaskRef{ID: fmt.Sprintf("web-%d", i)}); err != nil {
			t.Fatal(err)
		}
		spread(n, "net", 3)
	}
	if got := c.tasks("net", "web"); len(got) > 0 {
		t.Errorf("the removals are spread, and a node knows %v", got)
	}
}
