package gossip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// wideCore returns a core that takes part in some networks, and the addresses
// by which it knows others.
func wideCore(t *testing.T, networks int) *Core {
	t.Helper()
	store := state.NewStore("self", 1, state.DefaultLimits(), new(lamport))
	c := NewCore(CoreConfig{Self: "self", Boot: 9, ExpectPeers: true}, rand.New(rand.NewPCG(1, 1)), store)
	for i := range networks {
		if err := c.JoinNetwork(0, fmt.Sprintf("net%03d", i)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// says returns the packet in which an owner states that it takes part in networks.
func says(t *testing.T, owner state.NodeID, networks int) []byte {
	t.Helper()
	src := state.NewStore(owner, 1, state.DefaultLimits(), new(lamport))
	var cs []state.Change
	for i := range networks {
		cs = append(cs, state.Change{Kind: state.KindMember, Key: fmt.Sprintf("net%03d", i)})
	}
	if _, err := src.Global().Commit(cs); err != nil {
		t.Fatal(err)
	}
	e := newEncoder("peer", 1)
	e.open(frameDelta)
	e.delta(src.Global().Delta(state.Want{Owner: owner}, 1<<30))
	e.close()
	return e.b
}

// probesOf counts how often each network's hash is in what the core sends.
func probesOf(t *testing.T, c *Core, into map[uint64]int) (packets, bytes int) {
	t.Helper()
	sends, _ := c.Drain()
	for _, s := range sends {
		_, rest, err := decodeHead(s.Data)
		if err != nil {
			t.Fatal(err)
		}
		typ, p, _, err := nextFrame(rest)
		if err != nil {
			t.Fatal(err)
		}
		if typ != frameProbe {
			continue
		}
		if len(s.Data) > c.cfg.Datagram {
			t.Fatalf("G5: a probe of %d bytes", len(s.Data))
		}
		f, err := decodeProbe(typ, p)
		if err != nil {
			t.Fatal(err)
		}
		packets, bytes = packets+1, bytes+len(s.Data)
		for _, h := range f.tables {
			into[h.network]++
		}
	}
	return packets, bytes
}

// TestEveryNetworkIsComparedEquallyOften covers G4: with 40 networks, the first
// 14 of the alphabet were compared in each round, the others in every 40th.
func TestEveryNetworkIsComparedEquallyOften(t *testing.T) {
	for _, networks := range []int{1, 14, 40, 100, 600} {
		c := wideCore(t, networks)
		c.MemberAlive(0, "peer", netip.MustParseAddrPort("10.0.0.2:7946"))
		c.Receive(0, says(t, "peer", networks))
		for _, n := range c.nets.byName {
			n.table.SetSynced()
		}
		probesOf(t, c, map[uint64]int{})
		count := map[uint64]int{}
		const rounds = 120
		for now, r := time.Second, 0; r < rounds; now = c.Next() {
			if now >= c.pace.roundAt {
				r++
			}
			c.Receive(now, says(t, "peer", networks)) // it lives
			c.Tick(now)
			if packets, _ := probesOf(t, c, count); packets > roundPackets {
				t.Fatalf("%d networks, at %v: %d probes at once", networks, now, packets)
			}
		}
		least, most := rounds, 0
		for _, n := range c.nets.byName {
			least, most = min(least, count[n.hash]), max(most, count[n.hash])
		}
		if most-least > 2 || networks <= 100 && least < rounds-2 {
			t.Errorf("G4: %d networks: one was compared %d times, another %d times in %d rounds", networks, least, most, rounds)
		}
	}
}

// TestJoinAsksFew: what a joining node sends when it hears who takes part does
// not grow with how many they are (it was one probe of 15 networks for each
// network of each node: 106,000 at 1,000 nodes and 100 networks).
func TestJoinAsksFew(t *testing.T) {
	sent := map[int]int{}
	for _, nodes := range []int{50, 500} {
		c := wideCore(t, 50)
		for i := range nodes {
			c.MemberAlive(0, state.NodeID(fmt.Sprintf("n%04d", i)),
				netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946))
		}
		for i := range nodes {
			c.Receive(time.Duration(i)*time.Millisecond, says(t, state.NodeID(fmt.Sprintf("n%04d", i)), 50))
		}
		packets, bytes := probesOf(t, c, map[uint64]int{})
		if sent[nodes] = packets; packets == 0 || bytes > c.cfg.PushBurst/10 {
			t.Errorf("%d nodes: %d probes, %d bytes", nodes, packets, bytes)
		}
	}
	if sent[500] > 2*sent[50] {
		t.Errorf("probes of a join grow with the mesh: %v", sent)
	}
}

// TestJoinFetchesOnce: of several who were asked for a large table, one sends it.
func TestJoinFetchesOnce(t *testing.T) {
	c := wideCore(t, 1)
	for _, p := range []state.NodeID{"a", "b", "c"} {
		c.MemberAlive(0, p, netip.MustParseAddrPort("10.0.0.2:7946"))
	}
	c.Drain()
	answers := 0
	for i, p := range []state.NodeID{"a", "b", "c", "a"} {
		e := newEncoder(p, uint64(i))
		s := summaryFrame{network: "net000", hashes: make([]uint64, 64)}
		for i := range s.hashes {
			s.hashes[i] = uint64(i) + 7
		}
		e.summary(s)
		c.Receive(time.Millisecond, e.b)
		sends, _ := c.Drain()
		for _, s := range sends {
			if frameOf(t, s) == frameHeads {
				answers++
			}
		}
	}
	if answers != 1 {
		t.Fatalf("%d peers were asked for the whole table", answers)
	}
}

// TestFewAreAllAsked: while a network is not synced, each of a few members is
// asked as it appears, for where all start at once nobody else may know what it
// knows; of many, a few more than those.
func TestFewAreAllAsked(t *testing.T) {
	for _, nodes := range []int{2, 25, 500} {
		c := wideCore(t, 0)
		c.Drain()
		asked := map[state.NodeID]bool{}
		for i := range nodes {
			id := state.NodeID(fmt.Sprintf("n%04d", i))
			c.MemberAlive(time.Duration(i)*time.Millisecond, id,
				netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946))
			sends, _ := c.Drain()
			for _, s := range sends {
				if frameOf(t, s) == frameProbe {
					asked[s.To] = true
				}
			}
			if nodes <= smallTable && !asked[id] {
				t.Fatalf("%d nodes: %s appeared and was not asked", nodes, id)
			}
		}
		if len(asked) > smallTable+peersPerAsk {
			t.Errorf("%d nodes: %d were asked", nodes, len(asked))
		}
	}
}
