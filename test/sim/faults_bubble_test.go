//go:build !race

package sim

import (
	"slices"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// TestPause: a host that stands still for two seconds is not hidden; one that
// stands still for longer is, comes back at once, and takes nobody with it.
func TestPause(t *testing.T) {
	for _, d := range []time.Duration{2 * time.Second, 10 * time.Second, 30 * time.Second} {
		calm(t, MeshOptions{}, func(t *testing.T, m *Mesh) {
			c, mark := m.Machine(7), m.mark()
			m.Net.Pause(7)
			m.Run(d)
			m.Net.Resume(7)
			took := within(t, m, "all alive after the pause", time.Second, m.Whole)
			m.Run(10 * time.Second)
			ids := alarms(m, mark)
			t.Logf("paused for %v: hidden %v, whole %v after it", d, ids, took)
			if hid := slices.Contains(ids, c.ID); hid != (d > 3*time.Second) {
				t.Errorf("a pause of %v hides the node: %v", d, hid)
			}
			for _, e := range m.since(mark) {
				if e.Kind == gossip.EventDead && e.Event.Node != c.ID && e.Node != c.ID {
					t.Errorf("%s hid %s, which did not pause", e.Node, e.Event.Node)
				}
			}
			final(t, m)
		})
	}
}

// TestOneToOneFailure: A cannot reach B, but C can: B is served after the rest
// at most, and does not flap.
func TestOneToOneFailure(t *testing.T) {
	calm(t, MeshOptions{}, func(t *testing.T, m *Mesh) {
		a, b, mark := m.Machine(3), m.Machine(7), m.mark()
		m.Net.Cut(3, 7, CutAll)
		m.Net.Cut(7, 3, CutAll)
		m.Run(5 * time.Minute)
		if ids := alarms(m, mark); len(ids) > 0 {
			t.Errorf("hidden: %v", ids)
		}
		changes := 0
		for _, e := range m.since(mark) {
			if e.Node == a.ID && e.Event.Node == b.ID {
				changes++
			}
		}
		t.Logf("%s takes %s as %v after %d changes", a.ID, b.ID, a.Store().Liveness(b.ID), changes)
		if l := a.Store().Liveness(b.ID); l != state.Suspected {
			t.Errorf("%s takes %s, which it cannot reach and others can, as %v", a.ID, b.ID, l)
		}
		if l := m.Machine(5).Store().Liveness(b.ID); l != state.Alive {
			t.Errorf("the others take %s as %v", b.ID, l)
		}
		if changes > 10 {
			t.Errorf("it flapped %d times in five minutes", changes)
		}
		if !m.Equal() {
			t.Error("the tables differ")
		}
		m.Net.Mend()
		m.Run(time.Minute)
		within(t, m, "whole after the end", 5*time.Second, m.Whole)
		final(t, m)
	})
}

// TestHalfIsolation: a node that is cut from half of the others stays served,
// its changes reach all, and it spreads no false alarms.
func TestHalfIsolation(t *testing.T) {
	calm(t, MeshOptions{}, func(t *testing.T, m *Mesh) {
		mark := m.mark()
		for i := range m.all {
			if i%2 == 0 && i != 7 {
				m.Net.Cut(7, i, CutAll)
				m.Net.Cut(i, 7, CutAll)
			}
		}
		m.Run(time.Minute)
		if err := m.Machine(7).Commit(Endpoint("x", "web", 1)); err != nil {
			t.Fatal(err)
		}
		took := within(t, m, "its change reaches all", time.Second, m.Equal)
		m.Run(time.Minute)
		t.Logf("its change reached all in %v; hidden meanwhile: %v", took, alarms(m, mark))
		for _, e := range m.since(mark) {
			if e.Kind == gossip.EventDead {
				t.Errorf("%v: %s hid %s", e.At, e.Node, e.Event.Node)
			}
		}
		m.Net.Mend()
		m.Run(30 * time.Second)
		within(t, m, "whole after the end", 5*time.Second, m.Whole)
		final(t, m)
	})
}

// TestOneWayNode: a node that can be heard and cannot hear, and the reverse.
func TestOneWayNode(t *testing.T) {
	for _, deaf := range []bool{true, false} {
		calm(t, MeshOptions{}, func(t *testing.T, m *Mesh) {
			mark := m.mark()
			for i := range m.all {
				if i != 7 && deaf {
					m.Net.Cut(i, 7, CutAll)
				} else if i != 7 {
					m.Net.Cut(7, i, CutAll)
				}
			}
			m.Run(time.Minute)
			for _, e := range m.since(mark) {
				if e.Kind == gossip.EventDead && e.Event.Node != "n0007" && e.Node != "n0007" {
					t.Errorf("deaf %v: %v: %s hid %s", deaf, e.At, e.Node, e.Event.Node)
				}
			}
			t.Logf("deaf %v: n0000 takes n0007 as %v", deaf, m.Machine(0).Store().Liveness("n0007"))
			m.Net.Mend()
			took := within(t, m, "whole after the end", 5*time.Second, m.Whole)
			t.Logf("deaf %v: whole %v after the end", deaf, took)
			m.Run(30 * time.Second)
			final(t, m)
		})
	}
}

// TestOnlyDatagramsOrStreams: UDP-only and TCP-only cuts of one node and of
// half of the mesh.
func TestOnlyDatagramsOrStreams(t *testing.T) {
	for _, x := range []struct {
		name string
		cut  Cut
		half bool
	}{
		{"datagrams of one", CutDatagrams, false},
		{"streams of one", CutStreams, false},
		{"datagrams between halves", CutDatagrams, true},
		{"streams between halves", CutStreams, true},
	} {
		calm(t, MeshOptions{}, func(t *testing.T, m *Mesh) {
			mark := m.mark()
			for i := range m.all {
				for j := range m.all {
					if x.half && i%2 != j%2 || !x.half && (i == 7) != (j == 7) {
						m.Net.Cut(i, j, x.cut)
					}
				}
			}
			m.Run(time.Minute)
			if err := m.Machine(7).Commit(Endpoint("x", "web", 1)); err != nil {
				t.Fatal(err)
			}
			took, ok := m.Until(m.Equal, 10*time.Millisecond, 10*time.Second)
			hidden := 0
			for _, c := range m.all {
				for _, o := range m.all {
					if c != o && c.Store().Liveness(o.ID) == state.Dead {
						hidden++
					}
				}
			}
			if !ok {
				t.Errorf("cut: %s: a change does not reach all", x.name)
			}
			t.Logf("cut: %s: a change reaches all: %v %v; hidden pairs %d, alarms %d", x.name, ok, took, hidden,
				len(alarms(m, mark)))
			m.Net.Mend()
			took = within(t, m, "whole after the end", 5*time.Second, m.Whole)
			t.Logf("cut: %s: whole %v after the end", x.name, took)
			m.Run(30 * time.Second)
			final(t, m)
		})
	}
}

// TestBadLinks: loss, duplicates and reordering, from the boot on.
func TestBadLinks(t *testing.T) {
	l := Link{
		Base: 300 * time.Microsecond, Jitter: 150 * time.Microsecond, Loss: 0.1, Dup: 0.1, Reorder: 0.1,
		Hold: 50 * time.Millisecond,
	}
	calm(t, MeshOptions{Link: l}, func(t *testing.T, m *Mesh) {
		var worst time.Duration
		for i := range 20 {
			if err := m.Machine(i % 25).Commit(Endpoint("x", "web", i)); err != nil {
				t.Fatal(err)
			}
			took := within(t, m, "a change on bad links", 3*time.Second, m.Equal)
			worst = max(worst, took)
			m.Run(100 * time.Millisecond)
		}
		t.Logf("20 changes, the slowest %v", worst)
		final(t, m)
	})
}
