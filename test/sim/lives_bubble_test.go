//go:build !race

package sim

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// calm starts a mesh of 25 with tasks and waits until it is whole.
func calm(t *testing.T, opt MeshOptions, f func(t *testing.T, m *Mesh)) {
	t.Helper()
	def(&opt.Nodes, 25)
	def(&opt.Seed, 5)
	inMesh(t, opt, func(t *testing.T, m *Mesh) {
		populate(t, m)
		within(t, m, "whole at first", 5*time.Second, m.Whole)
		m.Run(3 * time.Second)
		f(t, m)
	})
}

// alarms lists who was hidden since a mark.
func alarms(m *Mesh, mark int) (ids []state.NodeID) {
	for _, e := range m.since(mark) {
		if e.Kind == gossip.EventDead && !slices.Contains(ids, e.Event.Node) {
			ids = append(ids, e.Event.Node)
		}
	}
	return ids
}

// TestRestartWithinASecond: G11. memberlist notices nothing; the tables must.
func TestRestartWithinASecond(t *testing.T) {
	for _, disk := range []bool{true, false} {
		calm(t, MeshOptions{}, func(t *testing.T, m *Mesh) {
			c, mark := m.Machine(7), m.mark()
			if err := c.Crash(false, disk); err != nil {
				t.Fatal(err)
			}
			m.Run(time.Second)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			took := within(t, m, "whole after the restart", 3*time.Second, m.Whole)
			m.Run(15 * time.Second)
			t.Logf("disk kept %v: whole %v after the restart", disk, took)
			if ids := alarms(m, mark); len(ids) > 0 {
				t.Errorf("a restart within a second hid %v", ids)
			}
			final(t, m)
		})
	}
}

// TestSeedRestartsWithoutPeers: G2, G11. The node that others joined through,
// itself told of nobody, is killed before it wrote down whom it met, and is back
// before anybody missed it. The others list it as before and ping it.
func TestSeedRestartsWithoutPeers(t *testing.T) {
	calm(t, MeshOptions{Nodes: 2, Seeds: 1}, func(t *testing.T, m *Mesh) {
		c := m.Machine(0)
		if err := c.Crash(false, true); err != nil {
			t.Fatal(err)
		}
		c.peers = nil
		m.Run(200 * time.Millisecond)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Logf("whole %v after the restart", within(t, m, "whole after the restart", 4*time.Second, m.Whole))
		m.Run(15 * time.Second) // whole with the former life's tables, at first
		final(t, m)
	})
}

// TestNewAddress: a node comes back under its name at another address.
func TestNewAddress(t *testing.T) {
	for _, down := range []time.Duration{time.Second, time.Minute} {
		calm(t, MeshOptions{}, func(t *testing.T, m *Mesh) {
			c := m.Machine(7)
			if err := c.Crash(true, true); err != nil {
				t.Fatal(err)
			}
			m.Run(down)
			c.Move(netip.MustParseAddrPort("10.99.0.7:7946"))
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			equal := within(t, m, "equal tables", 5*time.Second, m.Equal)
			whole := within(t, m, "alive everywhere", 10*time.Second, m.Whole)
			listed, ok := m.Until(func() bool { return m.Listed() == 0 }, 100*time.Millisecond, time.Minute)
			t.Logf("down for %v: equal %v, alive %v, in the membership %v %v after the start at a new address", down, equal,
				equal+whole, equal+whole+listed, ok)
			m.Run(10 * time.Second)
			final(t, m)
		})
	}
}

// TestLeave: a node that leaves in order is not mourned.
func TestLeave(t *testing.T) {
	calm(t, MeshOptions{}, func(t *testing.T, m *Mesh) {
		mark := m.mark()
		c := m.Machine(7)
		if err := c.Leave(); err != nil {
			t.Fatal(err)
		}
		within(t, m, "its tasks are gone", 500*time.Millisecond, func() bool {
			return !slices.ContainsFunc(m.all, func(o *Machine) bool {
				return o.up && len(o.Table("net").OwnerEntries(c.ID, state.KindEndpoint)) > 0
			})
		})
		m.Run(30 * time.Second)
		for _, e := range m.since(mark) {
			if e.Event.Node == c.ID && (e.Kind == gossip.EventDead || e.Kind == gossip.EventSuspect) {
				t.Errorf("%s takes a node that left for %v at %v", e.Node, e.Kind, e.At)
			}
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		within(t, m, "whole when it is back", 5*time.Second, m.Whole)
		m.Run(15 * time.Second)
		final(t, m)
	})
}

// TestOneNameTwice: S7. Both are told, the first keeps the name, and nobody
// else sees the entries flap.
func TestOneNameTwice(t *testing.T) {
	calm(t, MeshOptions{}, func(t *testing.T, m *Mesh) {
		first, mark := m.Machine(7), m.mark()
		second := m.Add(first.ID)
		if err := second.Start(); err != nil {
			t.Fatal(err)
		}
		told := func(c *Machine) bool {
			return slices.ContainsFunc(m.since(mark), func(e MeshEvent) bool {
				return e.Kind == gossip.EventDuplicate &&
					e.by == c
			})
		}
		took := within(t, m, "both say it", 10*time.Second, func() bool { return told(first) && told(second) })
		t.Logf("both know after %v", took)
		m.waitIdle()
		if first.Core.Yielded() || !second.Core.Yielded() {
			t.Errorf("the first yields: %v, the second: %v", first.Core.Yielded(), second.Core.Yielded())
		}
		within(t, m, "the others hold what the first says", 5*time.Second, func() bool { return others(m, first, second) })
		flaps := 0
		for range 600 {
			m.Run(100 * time.Millisecond)
			if !others(m, first, second) {
				flaps++
			}
		}
		if flaps > 0 {
			t.Errorf("its entries were not served as it states them in %d of 600 looks", flaps)
		}
		if err := second.Crash(false, false); err != nil {
			t.Fatal(err)
		}
		second.Node.disk = newDisk()
		m.Run(20 * time.Second)
		final(t, m)
	})
}

// others reports whether all but the pair hold what the first states, and take it for alive.
func others(m *Mesh, first, second *Machine) bool {
	for _, o := range m.all {
		if o == first || o == second {
			continue
		}
		if o.Store().Liveness(first.ID) == state.Dead || len(o.Table("net").OwnerEntries(first.ID, state.KindEndpoint)) != 2 {
			return false
		}
	}
	return true
}

// logged collects what hosts log at warn and above.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestWrongKey: a node without the key stays out, and says why.
func TestWrongKey(t *testing.T) {
	key, other := []byte("0123456789abcdef0123456789abcdef"), []byte("fedcba9876543210fedcba9876543210")
	for _, wrong := range [][][]byte{{other}, nil} {
		var log logged
		opt := MeshOptions{Nodes: 5, Keys: [][]byte{key}, Log: slog.New(slog.NewTextHandler(&log, nil))}
		calm(t, opt, func(t *testing.T, m *Mesh) {
			stranger := m.Add("stranger")
			stranger.keys = wrong
			if err := stranger.Start(); err != nil {
				t.Fatal(err)
			}
			m.Run(20 * time.Second)
			for _, c := range m.all {
				for _, i := range c.Core.Members() {
					if c == stranger || i.ID == stranger.ID {
						t.Fatalf("%s knows %s", c.ID, i.ID)
					}
				}
			}
		})
		if !strings.Contains(log.String(), "same --key-file") {
			t.Errorf("wrong key %v: the log does not say what to do:\n%.2000s", len(wrong), log.String())
		}
	}
}

// TestKeyRotationInAPartition: G9. One side rotates while the other cannot
// hear; with the old key still installed, all meet again.
func TestKeyRotationInAPartition(t *testing.T) {
	old, fresh := []byte("0123456789abcdef0123456789abcdef"), []byte("fedcba9876543210fedcba9876543210")
	calm(t, MeshOptions{Nodes: 10, Keys: [][]byte{old}}, func(t *testing.T, m *Mesh) {
		for _, c := range m.all { // install everywhere
			if err := c.Host.Keyring().AddKey(fresh); err != nil {
				t.Fatal(err)
			}
		}
		m.Partition(func(i int) int { return i % 2 })
		m.Run(20 * time.Second)
		for i, c := range m.all { // use on one side
			if i%2 == 0 {
				if err := c.Host.Keyring().UseKey(fresh); err != nil {
					t.Fatal(err)
				}
			}
		}
		m.Run(20 * time.Second)
		m.Net.Mend()
		within(t, m, "whole with two primaries", 5*time.Second, m.Whole)
		for _, c := range m.all {
			if err := c.Host.Keyring().UseKey(fresh); err != nil {
				t.Fatal(err)
			}
			if err := c.Host.Keyring().RemoveKey(old); err != nil {
				t.Fatal(err)
			}
			m.Run(300 * time.Millisecond)
		}
		m.Run(10 * time.Second)
		within(t, m, "whole with the new key", time.Second, m.Whole)
		final(t, m)
	})
}
