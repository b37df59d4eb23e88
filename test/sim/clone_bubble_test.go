//go:build !race

package sim

import (
	"slices"
	"testing"
	"time"

	"meshd/gossip"
)

// clockOf is the boot id of a node that starts at a time of the wall.
func clockOf(at time.Time) uint64 { return uint64(at.UnixMilli()) << 16 }

// TestCloneWithAnotherClock: S7, S8. A clone whose clock is of 1970, or a year
// ahead, yields to the one that has been running longer, whatever the boot ids
// say; also when that one is started again. Both say so, once.
func TestCloneWithAnotherClock(t *testing.T) {
	for name, at := range map[string]time.Time{"1970": time.UnixMilli(1), "a year ahead": time.Now().AddDate(1, 0, 0)} {
		t.Run(name, func(t *testing.T) {
			calm(t, MeshOptions{Nodes: 5}, func(t *testing.T, m *Mesh) {
				first, mark := m.Machine(4), m.mark()
				clone := m.Add(first.ID)
				clone.Boot = clockOf(at)
				if err := clone.Start(); err != nil {
					t.Fatal(err)
				}
				within(t, m, "the clone yields, and both say it", 5*time.Second, func() bool {
					return clone.Core.Yielded() && !first.Core.Yielded() && told(m, mark, first) == 1 && told(m, mark, clone) == 1
				})
				m.Run(time.Minute)
				within(t, m, "the others hold what the first says", time.Second, func() bool { return others(m, first, clone) })
				if a, b := told(m, mark, first), told(m, mark, clone); a != 1 || b != 1 {
					t.Errorf("told %d and %d times", a, b)
				}
				if err := first.Crash(false, true); err != nil {
					t.Fatal(err)
				}
				m.Run(300 * time.Millisecond)
				if err := first.Start(); err != nil {
					t.Fatal(err)
				}
				m.Run(20 * time.Second)
				if first.Core.Yielded() || !clone.Core.Yielded() {
					t.Errorf("after a restart of the one that has the name, it yields: %v; the clone: %v", first.Core.Yielded(),
						clone.Core.Yielded())
				}
				if err := first.Crash(true, true); err != nil {
					t.Fatal(err)
				}
				within(t, m, "the clone has the name when the first is gone", time.Minute,
					func() bool { return !clone.Core.Yielded() })
				clone.Node.disk = first.Node.disk
				m.Run(5 * time.Second)
			})
		})
	}
}

// told counts how often a machine said that another has its name.
func told(m *Mesh, mark int, c *Machine) (n int) {
	for _, e := range m.since(mark) {
		if e.Kind == gossip.EventDuplicate && e.by == c && e.Reason != "" {
			n++
		}
	}
	return n
}

// TestLongDeadMeshStart: S12. A node that starts where most are long dead does
// not take itself for cut off.
func TestLongDeadMeshStart(t *testing.T) {
	calm(t, MeshOptions{Nodes: 10}, func(t *testing.T, m *Mesh) {
		for i := 4; i < 10; i++ {
			c := m.Machine(i)
			if err := c.Crash(true, true); err != nil {
				t.Fatal(err)
			}
			m.Run(30 * time.Second)
		}
		c := m.Machine(3)
		if err := c.Crash(false, true); err != nil {
			t.Fatal(err)
		}
		m.Run(10 * time.Second)
		mark := m.mark()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for range 600 {
			m.Run(100 * time.Millisecond)
			if c.Core.Preserving() {
				t.Fatal("it takes the long dead for lately lost")
			}
		}
		if slices.ContainsFunc(m.since(mark), func(e MeshEvent) bool { return e.Kind == gossip.EventPreserve }) {
			t.Error("somebody is degraded")
		}
	})
}
