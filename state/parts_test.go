package state

import (
	"net/netip"
	"testing"
)

// The parts of a table, each without the others.

func TestDigestAlone(t *testing.T) {
	var d digest
	a, b := newStream("a"), newStream("b")
	a.head, b.head = Head{Inc: 1, Version: 3, Sum: 7}, Head{Inc: 1, Version: 5, Sum: 9}
	hidden := newStream("c")
	hidden.head, hidden.offered = Head{Inc: 1, Version: 1}, false
	for _, s := range []*stream{a, b, hidden, newStream("empty")} {
		d.count(s, 1)
	}
	both := d.Hash()
	if both != a.head.hash(a.hash)+b.head.hash(b.hash) {
		t.Error("the hash is not that of the two streams that are offered")
	}
	sum := uint64(0)
	for _, x := range d.Buckets(16) {
		sum += x
	}
	if sum != both {
		t.Error("16 buckets are not the whole")
	}
	at := Bucket("a", 16)
	newer := Head{Inc: 2, Version: 1}
	heads := []OwnerHead{{Owner: "a", Head: newer}}
	if Bucket("b", 16) == at {
		heads = append(heads, OwnerHead{Owner: "b", Head: b.head})
	}
	with := d.HashWith(16, []int{at, at, -1, 99}, heads)
	d.count(a, -1)
	a.head = newer
	d.count(a, 1)
	if d.Hash() != with {
		t.Error("HashWith is not the hash of a table with that head")
	}
	d.count(a, -1)
	if d.count(b, -1); d != (digest{}) {
		t.Error("streams that went are still in it")
	}
}

func TestStreamSetAlone(t *testing.T) {
	var total usage
	clock := testClock(0)
	set := &streamSet{
		network: "net", self: "me", limits: DefaultLimits(), streams: map[NodeID]*stream{}, live: map[NodeID]Liveness{},
		index: newIndex("net", newBelief(&clock)), total: &total,
	}
	s := set.stream("a")
	e := Endpoint{IP4: netip.MustParseAddr("10.1.0.7")}
	body := string(AppendEndpoint(nil, &e))
	set.touch(s, func() {
		s.head = Head{Inc: 1, Version: 2}
		set.put(s, set.entry(s, Record{Kind: KindEndpoint, Key: "t1", Group: "web", Body: body, Version: 1}))
		set.put(s, set.entry(s, Record{Kind: KindEndpoint, Key: "t2", Group: "web", Body: "\x01", Version: 2}))
	})
	if set.Len() != 2 || set.Poison() != 1 || set.use != total || total.records != 2 || set.Hash() == 0 {
		t.Errorf("%d records, %d poisoned, %+v of %+v", set.Len(), set.Poison(), set.use, total)
	}
	if got := set.OwnerEntries("a", KindEndpoint); len(got) != 1 || got[0].Key() != "t1" {
		t.Errorf("the readable records are %v", got)
	}
	set.touch(s, func() { set.empty(s) })
	if set.Len() != 0 || total != (usage{}) {
		t.Errorf("emptied, it has %d records and counts %+v", set.Len(), total)
	}
}

func TestBarIndexAlone(t *testing.T) {
	x, s, sl := newBarIndex(), &serviceState{}, &slot{}
	x.self, x.pools = "me", newPoolSet([]NetworkDef{{Name: "net", Subnet4: netip.MustParsePrefix("10.96.0.0/16")}})
	for ip, want := range map[string]Bar{"10.1.0.7": BarNone, "127.0.0.1": BarLoopback, "10.96.0.1": BarPool} {
		own := want
		if want == BarPool { // what this node has itself outranks a pool
			own = BarNone
		}
		for owner, want := range map[NodeID]Bar{"a": want, "me": own} {
			e := Endpoint{IP4: netip.MustParseAddr(ip)}
			entry, _ := newEntry(newStream(owner), Record{
				Kind: KindEndpoint, Key: "t1", Group: "web", Version: 1, Body: string(AppendEndpoint(nil, &e)),
			})
			sl.current = entry
			if got := x.reason(entry); got != want {
				t.Errorf("%s of %s: %v, want %v", ip, owner, got, want)
			}
		}
	}
	x.set(s, sl, BarTwin)
	if len(x.barred) != 1 || len(x.twins["t1"]) != 1 || s.in4 != -1 {
		t.Errorf("barred: %+v %+v", x, s)
	}
	x.clear(s, sl, sl.current)
	if len(x.barred)+len(x.twins) != 0 || s.in4 != 0 || sl.bar != BarNone {
		t.Errorf("not barred: %+v %+v", x, s)
	}
}
