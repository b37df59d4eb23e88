package state

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestNetworksArePure covers V6: order and repetition of claims mean nothing,
// the oldest wins, others are told, removal and re-creation work.
func TestNetworksArePure(t *testing.T) {
	claim := rapid.Custom(func(rt *rapid.T) NetworkClaim {
		return NetworkClaim{
			NetworkDef: NetworkDef{
				Name: rapid.SampledFrom([]string{"n", "m"}).Draw(rt, "name"), Birth: uint64(rapid.IntRange(1, 4).Draw(rt, "birth")),
				Subnet4: netip.MustParsePrefix(rapid.SampledFrom([]string{"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"}).Draw(rt, "pool")),
			},
			Removed: rapid.IntRange(0, 3).Draw(rt, "removed") == 0,
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		claims := rapid.SliceOfN(claim, 1, 8).Draw(rt, "claims")
		e1, c1 := Networks(claims)
		e2, c2 := Networks(rapid.Permutation(append(claims, claims[0])).Draw(rt, "order"))
		if fmt.Sprint(e1, c1) != fmt.Sprint(e2, c2) {
			rt.Fatalf("V6: %v %v, in another order %v %v", e1, c1, e2, c2)
		}
		for name, d := range e1 {
			for _, c := range claims {
				gone := slices.ContainsFunc(claims, func(r NetworkClaim) bool { return r.Removed && r.Name == c.Name && r.Birth >= c.Birth })
				if c.Name != name || c.Removed || gone {
					continue
				}
				if c.Birth < d.Birth {
					rt.Fatalf("V6: %v is older than %v", c, d)
				}
				told := slices.ContainsFunc(c1[name], func(o NetworkDef) bool { return o.Subnet4 == c.Subnet4 })
				if told != (c.Subnet4 != d.Subnet4) {
					rt.Fatalf("V6: conflicts of %v: %v", d, c1[name])
				}
			}
		}
	})
}

// TestNetworkDefinitions follows a definition through two stores (V6, G6).
func TestNetworkDefinitions(t *testing.T) {
	a, b := NewStore("a", 1, DefaultLimits(), new(testClock)), NewStore("b", 1, DefaultLimits(), new(testClock))
	b.Join("net")
	state := func(c NetworkClaim) Change {
		return Change{Kind: KindNetwork, Key: c.Name, Body: string(AppendNetwork(nil, c))}
	}
	commit(t, a.Global(), Change{Kind: KindMember, Key: "net"}, Change{Kind: KindNode, Body: string(AppendNode(nil, NodeInfo{Boot: 7}))}, state(NetworkClaim{NetworkDef: pool28}))
	pull(t, a.Global(), b.Global(), "a", 1<<20)
	_, stale := b.Networks()
	b.Publish(1)
	select {
	case <-stale:
	default:
		t.Fatal("V6: readers are not told")
	}
	if d := b.View("net").Def(); d != pool28 || !slices.Equal(b.Participants("net"), []NodeID{"a"}) {
		t.Fatalf("V6: %+v, participants %v", d, b.Participants("net"))
	}
	if n, ok := b.Node("a"); !ok || n.Boot != 7 {
		t.Fatalf("%+v", n)
	}
	other := NetworkClaim{NetworkDef: NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.8.0.0/16"), Birth: 9}}
	commit(t, b.Global(), state(other))
	if d := b.Disputes()["net"]; len(d) != 1 || d[0] != other.NetworkDef || b.Defs()["net"] != pool28 {
		t.Fatalf("V6: disputes %+v", d)
	}
	commit(t, a.Global(), state(NetworkClaim{NetworkDef: pool28, Removed: true}))
	pull(t, a.Global(), b.Global(), "a", 1<<20)
	b.Publish(2)
	if d := b.View("net").Def(); d != other.NetworkDef || len(b.Disputes()) != 0 {
		t.Fatalf("V6: after the removal %+v", d)
	}
	a.Global().Retire()
	pull(t, a.Global(), b.Global(), "a", 1<<20)
	if _, ok := b.Node("a"); ok || len(b.Participants("net")) != 0 {
		t.Fatal("S9: a has left")
	}
}
