package gossip

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// counter is the clock of S8 for tests.
type counter uint64

func (l *counter) Tick() uint64     { *l++; return uint64(*l) }
func (l *counter) Time() uint64     { return uint64(*l) }
func (l *counter) Witness(t uint64) { *l = max(*l, counter(t)) }

// testCore returns the core of a node that takes part in "net", knows peers,
// and states one task.
func testCore(tb testing.TB, self state.NodeID, peers ...state.NodeID) *Core {
	tb.Helper()
	store := state.NewStore(self, 1, state.DefaultLimits(), new(counter))
	c := NewCore(CoreConfig{Self: self, Boot: 1}, rand.New(rand.NewPCG(1, 2)), store)
	e := state.Endpoint{ID: "t-" + string(self), Service: "web", IP4: netip.MustParseAddr("10.0.0.1")}
	e.Normalize()
	if err := c.JoinNetwork(0, "net"); err != nil {
		tb.Fatal(err)
	}
	ch := state.Change{Kind: state.KindEndpoint, Key: e.ID, Group: e.Service, Body: string(state.AppendEndpoint(nil, &e))}
	if err := c.Commit(0, "net", []state.Change{ch}); err != nil {
		tb.Fatal(err)
	}
	for i, p := range peers {
		c.MemberAlive(time.Second, p, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), 7946))
	}
	return c
}

// exchange lets two cores talk until they are silent and returns every packet.
func exchange(a, b *Core) (packets [][]byte) {
	now := 2 * time.Second
	for range 400 {
		for _, c := range []*Core{a, b} {
			other := b
			if c == b {
				other = a
			}
			c.Tick(now)
			sends, _ := c.Drain()
			for _, s := range sends {
				packets = append(packets, s.Data)
				if s.To == other.cfg.Self {
					other.Receive(now, s.Data)
				}
			}
		}
		now += 10 * time.Millisecond
	}
	return packets
}

// realPackets are packets of a real exchange: every frame type of a small mesh.
func realPackets(tb testing.TB) [][]byte {
	a, b := testCore(tb, "a", "b", "c"), testCore(tb, "b", "a", "c")
	ps := exchange(a, b)
	e := a.newPacket()
	e.summary(summaryFrame{
		network: "net", hashes: make([]uint64, 16),
		hot: []state.OwnerHead{{Owner: "b", Head: state.Head{Inc: 1, Version: 3}}},
	})
	e.call(frameCall, callFrame{id: 7, op: "keys", body: []byte("{}")})
	e.wants("net", []state.Want{{Owner: "a", Inc: 1, From: 1, After: 2}})
	return append(ps, e.b)
}

// FuzzReceive: whatever arrives, a core does not panic, keeps its own stream,
// and grows by no more than a small multiple of the bytes (G8, S1).
func FuzzReceive(f *testing.F) {
	for _, p := range realPackets(f) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		c := testCore(t, "a", "b")
		own, _ := c.store.Table("net").Head("a")
		c.Receive(3*time.Second, p)
		c.Tick(4 * time.Second)
		sends, _ := c.Drain()
		bytes := 0
		for _, s := range sends {
			bytes += len(s.Data)
		}
		if bytes > 64<<10+64*len(p) {
			t.Errorf("G8: %d bytes in made %d bytes out", len(p), bytes)
		}
		h, ok := c.store.Table("net").Head("a")
		if ok && h.Inc == own.Inc && h != own {
			t.Errorf("S1: a packet changed our own stream from %+v to %+v", own, h)
		}
		if got := c.store.Table("net").OwnerEntries("a", state.KindEndpoint); len(got) != 1 {
			t.Errorf("S1: %d own entries", len(got))
		}
	})
}

// FuzzFrames: every decoder on its own, and what decodes encodes to something
// that decodes to the same.
func FuzzFrames(f *testing.F) {
	for _, p := range realPackets(f) {
		_, rest, err := decodeHead(p)
		for err == nil && len(rest) > 0 {
			var typ byte
			var payload []byte
			if typ, payload, rest, err = nextFrame(rest); err == nil {
				f.Add(typ, payload)
			}
		}
	}
	f.Fuzz(func(t *testing.T, typ byte, p []byte) {
		roundTrip(t, typ, p)
	})
}
