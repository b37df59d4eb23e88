//go:build !race

package sim

import (
	"fmt"
	"testing"
	"time"
)

// seed tasks: every machine states two.
func populate(t *testing.T, m *Mesh) {
	t.Helper()
	for i, c := range m.all {
		if c.up {
			if err := c.Commit(Endpoint(TaskID(c.Node, 0), fmt.Sprintf("svc%d", i%5), i),
				Endpoint(TaskID(c.Node, 1), "web", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// final fails the test for every rule that is broken at rest.
func final(t *testing.T, m *Mesh) {
	t.Helper()
	m.waitIdle()
	m.Check.Final()
	for _, v := range m.Check.Violations {
		t.Error(v)
	}
}

// TestPartitionHeals: G2. However long the cut, all tables are equal within
// five seconds of its end.
func TestPartitionHeals(t *testing.T) {
	for _, x := range []struct {
		nodes int
		held  time.Duration
	}{
		{25, 10 * time.Second},
		{25, 40 * time.Second},
		{25, time.Minute},
		{25, 5 * time.Minute},
		{25, time.Hour},
		{100, time.Minute},
	} {
		inMesh(t, MeshOptions{Seed: uint64(x.held), Nodes: x.nodes}, func(t *testing.T, m *Mesh) {
			populate(t, m)
			within(t, m, "whole before the cut", 5*time.Second, m.Whole)
			m.Partition(func(i int) int { return i % 2 })
			m.Run(x.held)
			for i, c := range m.all {
				if err := c.Commit(Endpoint(TaskID(c.Node, 2), "late", 1000+i), Remove(TaskID(c.Node, 0))); err != nil {
					t.Fatal(err)
				}
			}
			m.Run(time.Second)
			m.Net.Mend()
			equal := within(t, m, "equal tables", 5*time.Second, m.Equal)
			whole := within(t, m, "all alive", 5*time.Second, m.Whole)
			listed, _ := m.Until(func() bool { return m.Listed() == 0 }, 100*time.Millisecond, 2*time.Minute)
			t.Logf("%d nodes cut for %v: equal %v, all alive %v, membership full %v after the end", x.nodes, x.held, equal,
				equal+whole, equal+whole+listed)
			final(t, m)
		})
	}
}
