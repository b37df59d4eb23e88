package state

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func networkChange(c NetworkClaim) Change {
	return Change{Kind: KindNetwork, Key: c.Name, Body: string(AppendNetwork(nil, c))}
}

func def4(name, pool string, birth uint64) NetworkDef {
	return NetworkDef{Name: name, Subnet4: netip.MustParsePrefix(pool), Birth: birth}
}

// mesh is a few stores whose global scopes are exchanged by hand.
type defMesh map[NodeID]*Store

func newDefMesh(names ...NodeID) defMesh {
	m := defMesh{}
	for _, n := range names {
		m[n] = NewStore(n, 1, DefaultLimits(), new(testClock))
	}
	return m
}

// state makes a node say something, and everybody hear it.
func (m defMesh) state(tb testing.TB, o NodeID, cs ...Change) {
	tb.Helper()
	if _, err := m[o].Global().Commit(cs); err != nil {
		tb.Fatal(err)
	}
	for _, n := range slices.Sorted(maps.Keys(m)) {
		if n != o {
			pull(tb, m[o].Global(), m[n].Global(), o, 1<<20)
		}
		m[n].Publish(0)
	}
}

func claimGen(names, pools []string) *rapid.Generator[NetworkClaim] {
	return rapid.Custom(func(rt *rapid.T) NetworkClaim {
		return NetworkClaim{
			NetworkDef: def4(rapid.SampledFrom(names).Draw(rt, "name"), rapid.SampledFrom(pools).Draw(rt, "pool"),
				uint64(rapid.IntRange(1, 4).Draw(rt, "birth"))),
			Removed: rapid.IntRange(0, 4).Draw(rt, "removed") == 0,
			Pinned:  rapid.Bool().Draw(rt, "pinned"),
			Lamport: uint64(rapid.IntRange(0, 6).Draw(rt, "lamport")),
		}
	})
}

// TestDefinitionsFollowStatements covers V6: whatever was said before and in
// whatever order it came, what a store makes of the statements depends on what
// is said now only, and it is what a new store makes of it at once.
func TestDefinitionsFollowStatements(t *testing.T) {
	owners := []NodeID{"a", "b", "c", "d"}
	claims := claimGen([]string{"n", "m", "o"}, []string{"10.1.0.0/16", "10.1.8.0/24", "10.2.0.0/16"})
	rapid.Check(t, func(rt *rapid.T) {
		type said struct {
			owner NodeID
			name  string
		}
		now, held := map[said]NetworkClaim{}, map[string]NetworkClaim{}
		answers := map[NodeID]bool{}
		live := NewStore("a", 1, DefaultLimits(), new(testClock))
		f := live.definer
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			o, c := rapid.SampledFrom(owners).Draw(rt, "owner"), claims.Draw(rt, "claim")
			silent, byHand := rapid.IntRange(0, 3).Draw(rt, "silent") == 0, o == "a" && rapid.Bool().Draw(rt, "by hand")
			switch {
			case silent && byHand:
				f.setOwn(c.Name, nil)
				delete(held, c.Name)
			case silent:
				f.set(c.Name, o, nil)
				delete(now, said{o, c.Name})
			case byHand:
				f.setOwn(c.Name, &c)
				held[c.Name] = c
			default:
				f.set(c.Name, o, &c)
				now[said{o, c.Name}] = c
			}
			if o != "a" && rapid.IntRange(0, 3).Draw(rt, "turns") == 0 {
				answers[o] = !answers[o]
				live.SetAnswers(o, answers[o])
			}
			if rapid.Bool().Draw(rt, "publish") {
				live.Publish(0)
			}
		}
		live.Publish(0)
		fresh := NewStore("a", 1, DefaultLimits(), new(testClock))
		for _, k := range rapid.Permutation(slices.SortedFunc(maps.Keys(now), func(x, y said) int {
			return slices.Compare([]string{string(x.owner), x.name}, []string{string(y.owner), y.name})
		})).Draw(rt, "order") {
			c := now[k]
			fresh.definer.set(k.name, k.owner, &c)
		}
		for name, c := range held {
			fresh.definer.setOwn(name, &c)
		}
		for o, yes := range answers {
			fresh.SetAnswers(o, yes)
		}
		fresh.Publish(0)
		d, want := *live.Definitions(), *fresh.Definitions()
		d.Version, want.Version = 0, 0
		if !reflect.DeepEqual(d, want) {
			rt.Fatalf("V6: %+v, from scratch %+v", d, want)
		}
		checkDefinitions(rt, &d, "a")
	})
}

func checkDefinitions(rt *rapid.T, d *Definitions, self NodeID) {
	for name, n := range d.Names {
		if own := n.Own; own.Name != "" && !own.Removed && d.Effective[name] != own.NetworkDef {
			rt.Fatalf("V6: %s states %v and goes by %v", self, own, d.Effective[name])
		}
		if n.Own.Name == "" && n.Defined {
			for _, o := range n.Stated {
				if x := n.Stated[0]; o.Def.samePools(&n.Def) && !o.Withdrawn && firstOf(o, x) {
					rt.Fatalf("V6: %v is in effect, not %v", x, o)
				}
			}
		}
		for _, o := range d.Disputes[name] {
			if o.samePools(&n.Def) {
				rt.Fatalf("V6: %v disputes itself", o)
			}
		}
	}
	for a := range d.Effective {
		want := ""
		for b := range d.Effective {
			da, db := d.Effective[a], d.Effective[b]
			if a != b && da.Overlaps(&db) && ByAge(&db, &da) < 0 {
				if w := d.Effective[want]; want == "" || ByAge(&db, &w) < 0 {
					want = b
				}
			}
		}
		if d.Overlaps[a] != want {
			rt.Fatalf("V9: %s overlaps %q, not %q", a, d.Overlaps[a], want)
		}
	}
}

// firstOf reports whether a goes before b, of two definitions with the same pools:
// more that answer state it, then more at all, then it is older.
func firstOf(a, b Stated) bool {
	if a.Answering != b.Answering {
		return a.Answering > b.Answering
	}
	if a.Carriers != b.Carriers {
		return a.Carriers > b.Carriers
	}
	return a.Def.Birth < b.Def.Birth
}

// TestOverlapsAgainstPairs compares the one pass over sorted pools with all pairs.
func TestOverlapsAgainstPairs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		defs := map[string]NetworkDef{}
		for i := range rapid.IntRange(1, 20).Draw(rt, "networks") {
			d := NetworkDef{Name: fmt.Sprintf("n%d", i), Birth: uint64(rapid.IntRange(1, 5).Draw(rt, "birth"))}
			d.Subnet4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{
				10, byte(rapid.IntRange(0, 3).Draw(rt, "b")),
				byte(rapid.IntRange(0, 3).Draw(rt, "c")),
			}), rapid.IntRange(8, 25).Draw(rt, "bits")).Masked()
			if rapid.Bool().Draw(rt, "dual") {
				d.Subnet6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(rapid.IntRange(0, 3).Draw(rt, "d"))}),
					rapid.IntRange(10, 20).Draw(rt, "bits6")).Masked()
			}
			defs[d.Name] = d
		}
		checkDefinitions(rt, &Definitions{Effective: defs, Overlaps: overlaps(defs)}, "a")
	})
}

// TestOneStatementRedefinesNothing: a peer that states another, older
// definition of a running network changes nothing but what people are told, and
// nothing of it is left when it is gone (V6).
func TestOneStatementRedefinesNothing(t *testing.T) {
	m := newDefMesh("a", "b", "late")
	m["a"].Join("net")
	mine := def4("net", "10.1.0.0/16", 100)
	m.state(t, "a", networkChange(NetworkClaim{NetworkDef: mine, Pinned: true}))
	before := m["a"].Definitions()
	evil := NewStore("evil", 1, DefaultLimits(), new(testClock))
	m["evil"] = evil
	hostile := def4("net", "192.168.0.0/16", 1)
	m.state(t, "evil", networkChange(NetworkClaim{NetworkDef: hostile, Pinned: true}))
	d := m["a"].Definitions()
	if d.Effective["net"] != mine || len(d.Disputes["net"]) != 1 || m["a"].View("net").Def() != mine {
		t.Fatalf("V6: %+v", d)
	}
	m.state(t, "b", networkChange(NetworkClaim{NetworkDef: mine}))
	if d := m["late"].Definitions(); d.Effective["net"] != mine {
		t.Fatalf("V6: who states nothing follows the most carried, not %+v", d.Effective["net"])
	}
	evil.Global().Leave()
	for _, n := range []NodeID{"a", "b", "late"} {
		pull(t, evil.Global(), m[n].Global(), "evil", 1<<20)
		m[n].Publish(0)
		if d := m[n].Definitions(); d.Effective["net"] != mine || len(d.Disputes) > 0 {
			t.Fatalf("V6: %s keeps %+v of a peer that is gone", n, d)
		}
	}
	if before.Effective["net"] != mine || len(before.Disputes) > 0 {
		t.Fatal("a snapshot changed")
	}
}

// TestRemovalIsOfOneDefinition covers V8: a removal withdraws the pools that it
// names, as stated up to then, and nothing from a node that goes on using them.
func TestRemovalIsOfOneDefinition(t *testing.T) {
	m := newDefMesh("a", "b", "c", "evil")
	mine := def4("net", "10.1.0.0/16", 5)
	m.state(t, "a", Change{Kind: KindMember, Key: "net"}, networkChange(NetworkClaim{NetworkDef: mine, Pinned: true}))
	other := def4("net", "10.9.0.0/16", 1<<40)
	m.state(t, "evil", networkChange(NetworkClaim{NetworkDef: other, Removed: true, Lamport: 1 << 41}))
	if d := m["b"].Definitions(); d.Effective["net"] != mine || d.Withdrawn(mine) {
		t.Fatalf("V8: the removal of other pools: %+v", d)
	}
	m.state(t, "evil", networkChange(NetworkClaim{NetworkDef: mine, Removed: true, Lamport: 9}))
	for _, n := range []NodeID{"a", "b"} {
		if d := m[n].Definitions(); d.Effective["net"] != mine || !d.Withdrawn(mine) {
			t.Fatalf("V8: %s, while a uses it: %+v", n, d)
		}
	}
	m.state(t, "a", networkChange(NetworkClaim{NetworkDef: mine, Removed: true, Lamport: 10}),
		Change{Kind: KindMember, Key: "net", Delete: true})
	if d := m["b"].Definitions(); len(d.Effective) > 0 {
		t.Fatalf("V8: after the removal %+v", d)
	}
	again := mine
	again.Birth = 12
	m.state(t, "c", networkChange(NetworkClaim{NetworkDef: again}))
	if d := m["b"].Definitions(); d.Effective["net"] != again {
		t.Fatalf("V8: made again later: %+v", d)
	}
}

// TestOverlappingNetworks covers V9.
func TestOverlappingNetworks(t *testing.T) {
	m := newDefMesh("a", "b")
	red, blue := def4("red", "10.85.0.0/16", 5), def4("blue", "10.85.0.0/16", 5)
	m.state(t, "a", networkChange(NetworkClaim{NetworkDef: red}))
	m.state(t, "b", networkChange(NetworkClaim{NetworkDef: blue}))
	m["a"].Join("red")
	m["b"].Join("red")
	m["b"].Join("blue")
	for n, s := range m {
		s.Publish(0)
		if d := s.Definitions(); d.Overlaps["red"] != "blue" || len(d.Overlaps) != 1 {
			t.Fatalf("V9: %s: %v", n, d.Overlaps)
		}
	}
	m.state(t, "b", Change{Kind: KindNetwork, Key: "blue", Delete: true})
	if d := m["b"].Definitions(); len(d.Overlaps) > 0 {
		t.Fatalf("V9: blue is gone: %v", d.Overlaps)
	}
}

// TestReadersKeepTheirSet: what happens to networks elsewhere makes no reader
// forget what it packed, and no snapshot is made when nothing changed.
func TestReadersKeepTheirSet(t *testing.T) {
	m := newDefMesh("a", "b")
	m["a"].Join("net")
	m.state(t, "a", networkChange(NetworkClaim{NetworkDef: def4("net", "10.1.0.0/16", 5)}))
	_, stale := m["a"].Networks()
	for i := range uint64(10) {
		m.state(t, "b", networkChange(NetworkClaim{NetworkDef: def4("other", "10.2.0.0/16", 5+i)}),
			networkChange(NetworkClaim{NetworkDef: def4("net", "10.1.0.0/16", 5)}))
		m.state(t, "b", Change{Kind: KindNetwork, Key: "net", Delete: true})
	}
	select {
	case <-stale:
		t.Fatal("readers start afresh")
	default:
	}
	d := m["a"].Definitions()
	m.state(t, "b", Change{Kind: KindNode, Body: string(AppendNode(nil, NodeInfo{Boot: 7}))})
	if m["a"].Definitions() != d {
		t.Fatal("a new snapshot of the same")
	}
}

// TestOneOwnerStatesSoManyNetworks: an owner that states too many networks states
// none, however it came to that, and what others say of the same names stays.
func TestOneOwnerStatesSoManyNetworks(t *testing.T) {
	m := newDefMesh("a", "b")
	m.state(t, "a", networkChange(NetworkClaim{NetworkDef: def4("n00000", "10.0.0.0/24", 1)}))
	b := m["b"]
	names := func(o NodeID, version uint64, n int) {
		t.Helper()
		var rs []Record
		for i := range n {
			c := networkChange(NetworkClaim{NetworkDef: def4(fmt.Sprintf("n%05d", i), fmt.Sprintf("10.1.%d.0/24", i%256), 2)})
			rs = append(rs, Record{Kind: c.Kind, Key: c.Key, Body: c.Body, Version: version + uint64(i)})
		}
		d := forge(o, 1, version+uint64(n), rs...)
		d.Network = ""
		d.Inc = version
		if r, err := b.Apply(d); r != Applied {
			t.Fatal(r, err)
		}
		b.Publish(0)
	}
	for i, n := range []int{maxNetworks, maxNetworks + 1, 2 * maxNetworks, 10, maxNetworks + 1} {
		names("loud", uint64(i+1)*1_000_000, n)
		want := n
		if n > maxNetworks {
			want = 1
		}
		d := b.Definitions()
		if len(d.Effective) != want || !d.Effective["n00000"].Subnet4.IsValid() {
			t.Fatalf("%d networks of %d stated", len(d.Effective), n)
		}
		if (b.Full() != "") != (n > maxNetworks) {
			t.Fatalf("told: %q", b.Full())
		}
	}
	var cs []Change
	for i := range maxNetworks {
		cs = append(cs, networkChange(NetworkClaim{NetworkDef: def4(fmt.Sprintf("m%05d", i), "10.2.0.0/24", 2)}))
	}
	if _, err := m["a"].Global().Commit(cs); !errors.Is(err, ErrQuota) {
		t.Fatalf("one too many is taken: %v", err)
	}
	if _, err := m["a"].Global().Commit(append(cs[1:],
		networkChange(NetworkClaim{NetworkDef: def4("n00000", "10.0.0.0/24", 3)}))); err != nil {
		t.Fatal(err)
	}
}
