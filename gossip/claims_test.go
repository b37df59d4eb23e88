package gossip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// TestMeshOfOneSettles: V11. What a node that expects nobody claims counts like
// any other claim after five minutes alone; of one that expects others, it stays
// provisional for as long as they are not found.
func TestMeshOfOneSettles(t *testing.T) {
	for _, company := range []bool{false, true} {
		clock := new(lamport)
		store := state.NewStore("self", 1, state.DefaultLimits(), clock)
		c := NewCore(CoreConfig{Self: "self", Boot: 9, ExpectPeers: company}, rand.New(rand.NewPCG(1, 1)), store)
		def := state.NetworkClaim{NetworkDef: state.NetworkDef{
			Name: "net", Subnet4: netip.MustParsePrefix("10.9.0.0/24"),
			Birth: 1,
		}}
		if err := c.Commit(0, "", []state.Change{{
			Kind: state.KindNetwork, Key: "net",
			Body: string(state.AppendNetwork(nil, def)),
		}}); err != nil {
			t.Fatal(err)
		}
		if err := c.JoinNetwork(0, "net"); err != nil {
			t.Fatal(err)
		}
		c.Host("net", "web", state.Hosting{Tasks: 1})
		if err := c.Commit(0, "net", nil); err != nil {
			t.Fatal(err)
		}
		claim := func(at time.Duration) state.VIPClaim {
			for c.Next() <= at {
				c.Tick(c.Next())
			}
			own := store.Table("net").Own(state.KindVIP)
			if len(own) != 1 {
				t.Fatalf("company %v: %d claims after %v", company, len(own), at)
			}
			cl, err := state.ParseVIPClaim(own[0].Key(), own[0].Body())
			if err != nil {
				t.Fatal(err)
			}
			return cl
		}
		first := claim(aloneFor - 10*time.Second)
		if !first.Provisional {
			t.Errorf("company %v: %+v is not provisional", company, first)
		}
		last := claim(aloneFor + 10*time.Second)
		if last.Provisional != company || last.VIP4 != first.VIP4 || !company && last.Birth <= first.Birth {
			t.Errorf("company %v: %+v became %+v", company, first, last)
		}
	}
}

// TestClaimsOfOthersArePaced: V5. Whoever changes a claim with each packet does
// not make a node look at all of its own with each; and what it must look at it
// does in time.
func TestClaimsOfOthersArePaced(t *testing.T) {
	const services = 2000
	a, b := testCore(t, "a", "b"), testCore(t, "b", "a")
	def := state.NetworkClaim{NetworkDef: state.NetworkDef{
		Name: "net", Subnet4: netip.MustParsePrefix("10.9.0.0/16"),
		Birth: 1,
	}}
	for _, c := range []*Core{a, b} {
		if err := c.Commit(time.Second, "",
			[]state.Change{{Kind: state.KindNetwork, Key: "net", Body: string(state.AppendNetwork(nil, def))}}); err != nil {
			t.Fatal(err)
		}
	}
	exchange(a, b)
	for i := range services {
		a.Host("net", fmt.Sprintf("s%d", i), state.Hosting{Tasks: 1})
	}
	now := 10 * time.Second
	if err := a.Commit(now, "net", nil); err != nil {
		t.Fatal(err)
	}
	was := a.Stats.Carries
	for i := range 100 {
		now += 5 * time.Millisecond
		claim := state.VIPClaim{
			Service: "s7", VIP4: netip.AddrFrom4([4]byte{10, 9, 200, byte(i)}), Pinned: true,
			Birth: uint64(1000 + i),
		}
		if err := b.Commit(now, "net", []state.Change{{
			Kind: state.KindVIP, Key: "s7",
			Body: string(state.AppendVIPClaim(nil, claim)),
		}}); err != nil {
			t.Fatal(err)
		}
		b.Tick(now + 4*time.Millisecond)
		sends, _ := b.Drain()
		for _, s := range sends {
			a.Receive(now, s.Data)
		}
		a.Drain()
	}
	if n := a.Stats.Carries - was; n > 15 {
		t.Errorf("%d looks at %d claims in half a second", n, services)
	}
	for until := now + 500*time.Millisecond; a.Next() <= until; {
		a.Tick(a.Next())
		a.Drain()
	}
	s := a.store.Table("net").View().Service("s7")
	if own := a.store.Table("net").Own(state.KindVIP); len(own) != services ||
		s.VIP4 != netip.MustParseAddr("10.9.200.99") {
		t.Errorf("%d claims, s7 at %v", len(own), s.VIP4)
	}
}
