package gossip

import (
	"testing"
	"time"

	"meshd/gossip/gossiptest"
	"meshd/state"
)

// hostileWorld is what the packets of these tests speak of.
var hostileWorld = gossiptest.World{
	Self: "a", Peers: []string{"b", "c"}, Networks: []string{"net"}, Addrs: []string{"10.9.0.0:7946", "10.9.0.1:7946"},
}

// attacked is a core of a small mesh that gets hostile packets.
type attacked struct {
	*Core
	now time.Duration
	own state.Head
}

func newAttacked(tb testing.TB) *attacked {
	a, b := testCore(tb, "a", "b", "c"), testCore(tb, "b", "a", "c")
	exchange(a, b)
	own, _ := a.store.Table("net").Head("a")
	return &attacked{Core: a, now: 10 * time.Second, own: own}
}

// take hands the core a packet and checks what must hold after any.
func (a *attacked) take(tb testing.TB, p []byte) {
	a.Receive(a.now, p)
	a.drained(tb, len(p))
	a.now += 10 * time.Millisecond
	a.Tick(a.now)
	a.Drain()
}

func (a *attacked) drained(tb testing.TB, in int) {
	tb.Helper()
	sends, _ := a.Drain()
	bytes := 0
	for _, s := range sends {
		bytes += len(s.Data)
	}
	if most := a.cfg.Chunk + 64<<10; bytes > most {
		tb.Errorf("%d bytes in made %d bytes in %d packets out", in, bytes, len(sends))
	}
	h, ok := a.store.Table("net").Head("a")
	if ok && h.Inc == a.own.Inc && h != a.own {
		tb.Errorf("S1: a packet changed our own stream from %+v to %+v", a.own, h)
	}
	if got := a.store.Table("net").OwnerEntries("a", state.KindEndpoint); len(got) != 1 {
		tb.Errorf("S1: %d own entries", len(got))
	}
}

// TestGrammar: thousands of packets that are right but for their numbers, names
// and references do not end a core, touch its own stream or make it shout.
func TestGrammar(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 8
	}
	for seed := range uint64(seeds) {
		a := newAttacked(t)
		n := 0
		for p := range gossiptest.Packets(seed, hostileWorld) {
			if a.take(t, p); t.Failed() {
				t.Fatalf("seed %d, packet %d: %x", seed, n, p)
			}
			if n++; n == 250 {
				break
			}
		}
	}
}

// FuzzGrammar lets the fuzzer choose what the grammar writes.
func FuzzGrammar(f *testing.F) {
	for seed := range byte(32) {
		f.Add([]byte{seed, seed * 7, seed * 31})
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		a := newAttacked(t)
		s := gossiptest.FromBytes(choices)
		for range 8 {
			a.take(t, gossiptest.Packet(s, hostileWorld))
		}
	})
}
