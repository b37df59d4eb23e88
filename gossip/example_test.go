package gossip_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// lamport is a state.Clock of the examples.
type lamport uint64

func (l *lamport) Tick() uint64     { *l++; return uint64(*l) }
func (l *lamport) Time() uint64     { return uint64(*l) }
func (l *lamport) Witness(t uint64) { *l = max(*l, lamport(t)) }

// newNode returns a core, as a simulator makes it.
func newNode(name state.NodeID, number uint64) *gossip.Core {
	store := state.NewStore(name, 1, state.DefaultLimits(), new(lamport))
	cfg := gossip.CoreConfig{Self: name, Boot: number, ExpectPeers: true}
	return gossip.NewCore(cfg, rand.New(rand.NewPCG(number, 1)), store)
}

// Two cores are driven by hand: time and packets go in, packets and events come out.
func ExampleCore() {
	cores := map[state.NodeID]*gossip.Core{"a": newNode("a", 1), "b": newNode("b", 2)}
	addrs := map[state.NodeID]netip.AddrPort{
		"a": netip.MustParseAddrPort("10.0.0.1:7946"), "b": netip.MustParseAddrPort("10.0.0.2:7946"),
	}
	now := time.Second
	cores["a"].MemberAlive(now, "b", addrs["b"])
	cores["b"].MemberAlive(now, "a", addrs["a"])
	if err := cores["a"].Commit(now, "", []state.Change{{Kind: state.KindMember, Key: "frontend"}}); err != nil {
		fmt.Println(err)
	}
	for ; now < 2*time.Second; now += time.Millisecond {
		for _, name := range []state.NodeID{"a", "b"} {
			c := cores[name]
			if c.Next() <= now {
				c.Tick(now)
			}
			sends, _ := c.Drain()
			for _, s := range sends {
				cores[s.To].Receive(now, s.Data)
			}
		}
	}
	fmt.Println("in frontend, says b:", cores["b"].Store().Participants("frontend"))
	// Output: in frontend, says b: [a]
}

// A host runs a core over memberlist. Other goroutines reach the core through Do.
func ExampleHost() {
	h, err := gossip.NewHost(gossip.HostConfig{
		Self: "a", Incarnation: 1, Bind: netip.MustParseAddrPort("127.0.0.1:0"), Profile: "local",
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()

	var refused error
	err = h.Do(ctx, func(c *gossip.Core, now time.Duration) { refused = c.JoinNetwork(now, "frontend") })
	names, _ := h.Source().Networks()
	fmt.Printf("takes part in %q, %v, %v\n", names, err, refused)

	cancel()
	fmt.Println("ended:", <-ended)
	// Output:
	// takes part in ["frontend"], <nil>, <nil>
	// ended: <nil>
}
