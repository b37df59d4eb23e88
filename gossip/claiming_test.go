package gossip

import (
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
		c := NewCore(CoreConfig{Self: "self", Boot: 9, Company: company}, rand.New(rand.NewPCG(1, 1)), store)
		def := state.NetworkClaim{NetworkDef: state.NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.9.0.0/24"), Birth: 1}}
		if err := c.Commit(0, "", []state.Change{{Kind: state.KindNetwork, Key: "net", Body: string(state.AppendNetwork(nil, def))}}); err != nil {
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
