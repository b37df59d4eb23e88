package state

import (
	"net/netip"
	"slices"
	"testing"
)

// TestNetworkDefinitions follows a definition through two stores (V6, G6).
func TestNetworkDefinitions(t *testing.T) {
	a, b := NewStore("a", 1, DefaultLimits(), new(testClock)), NewStore("b", 1, DefaultLimits(), new(testClock))
	b.Join("net")
	state := func(c NetworkClaim) Change {
		return Change{Kind: KindNetwork, Key: c.Name, Body: string(AppendNetwork(nil, c))}
	}
	commit(t, a.Global(), Change{Kind: KindMember, Key: "net"},
		Change{Kind: KindNode, Body: string(AppendNode(nil, NodeInfo{Boot: 7}))}, state(NetworkClaim{NetworkDef: pool28}))
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
	if d := b.Disputes()["net"]; len(d) != 1 || d[0] != pool28 || b.Defs()["net"] != other.NetworkDef {
		t.Fatalf("V6: what a node states is in effect there; disputes %+v", d)
	}
	commit(t, a.Global(), state(NetworkClaim{NetworkDef: pool28, Removed: true}))
	pull(t, a.Global(), b.Global(), "a", 1<<20)
	b.Publish(2)
	if d := b.View("net").Def(); d != other.NetworkDef || len(b.Disputes()) != 0 {
		t.Fatalf("V6: after the removal %+v", d)
	}
	a.Global().Leave()
	pull(t, a.Global(), b.Global(), "a", 1<<20)
	if _, ok := b.Node("a"); ok || len(b.Participants("net")) != 0 {
		t.Fatal("S9: a has left")
	}
}
