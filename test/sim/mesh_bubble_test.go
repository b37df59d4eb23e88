//go:build !race

package sim

import (
	"flag"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

var hostLog = flag.Bool("hostlog", false, "show the log of whole nodes, with -v")

// inMesh runs f with a started mesh in a bubble.
func inMesh(t *testing.T, opt MeshOptions, f func(t *testing.T, m *Mesh)) {
	t.Helper()
	inBubble(t, opt, func(t *testing.T, m *Mesh) {
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		f(t, m)
	})
}

// inBubble runs f with a mesh that is not started, in a bubble.
func inBubble(t *testing.T, opt MeshOptions, f func(t *testing.T, m *Mesh)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // fastest per CPU: one bubble runs on one processor
	synctest.Test(t, func(t *testing.T) {
		opt.WaitIdle = synctest.Wait
		if testing.Verbose() && *hostLog {
			opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
		}
		m := NewMesh(opt)
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
		f(t, m)
	})
}

// within fails the test unless done holds within d.
func within(t *testing.T, m *Mesh, what string, d time.Duration, done func() bool) time.Duration {
	t.Helper()
	took, ok := m.Until(done, 10*time.Millisecond, d)
	if !ok {
		t.Errorf("not within %v: %s", d, what)
	}
	return took
}

func TestMeshBoots(t *testing.T) {
	for _, x := range []struct{ nodes, seeds int }{{25, 1}, {25, 3}, {100, 1}, {100, 3}} {
		inMesh(t, MeshOptions{Seed: 1, Nodes: x.nodes, Seeds: x.seeds}, func(t *testing.T, m *Mesh) {
			took := within(t, m, "all tables equal, all nodes alive", 5*time.Second, m.Whole)
			t.Logf("%d nodes, %d seeds: whole %v after the last start, %d pairs not listed", x.nodes, x.seeds, took, m.Listed())
			if err := m.Machine(3).Commit(Endpoint("a", "web", 1)); err != nil {
				t.Fatal(err)
			}
			took, _ = m.Until(m.Equal, 100*time.Microsecond, time.Second)
			t.Logf("one change visible everywhere after %v", took)
			if took > 500*time.Millisecond {
				t.Errorf("one change took %v", took)
			}
		})
	}
}
