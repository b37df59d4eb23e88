package nft

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/state"
)

var _ lb.Watchful = (*Driver)(nil)

// Elements that nobody of ours can have written go, and keep nothing from
// being read.
func TestStrayElements(t *testing.T) {
	r := newRig(t)
	r.Serve(r.Peer, "10.1.0.2:80")
	d := r.driver()
	s := service(vip4, 80, state.TCP, "10.1.0.2:80")
	r.program(d, table(s))
	m, c := &d.layout.maps[0], d.conn.Nftables
	odd := serviceElement(lb.Key{VIP: vip4, Port: 81, Proto: state.TCP}, class{shard: 1}, "")
	far := slotElement(s.Key, highestSlot, s.Backends[0].Addr)
	if err := errors.Join(c.SetAddElements(m.svc, []nftables.SetElement{odd}),
		c.SetAddElements(m.eps, []nftables.SetElement{far}), c.Flush()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := d.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ops := lb.Diff(got, table(s), lb.Policy{}); len(ops) > 0 {
			t.Errorf("differences %v", ops)
		}
	}
	for _, set := range []*nftables.Set{m.svc, m.eps} {
		if elems, err := c.GetSetElements(set); err != nil || len(elems) != 1 {
			t.Errorf("map %s has %d elements, %v; want the one of ours", set.Name, len(elems), err)
		}
	}
}

// A service whose class has more slots than there are is repaired, although
// its backends are the right ones.
func TestDamagedService(t *testing.T) {
	r := newRig(t)
	r.Serve(r.Peer, "10.1.0.2:80")
	d := r.driver()
	s := service(vip4, 80, state.TCP, "10.1.0.2:80")
	wide := service(vip4.Next(), 80, state.TCP, "10.1.0.2:80", "10.1.0.3:80")
	r.program(d, table(s, wide))
	m, c := &d.layout.maps[0], d.conn.Nftables
	right, wrong := serviceElement(s.Key, d.entries[s.Key].class, ""), serviceElement(s.Key, d.entries[wide.Key].class, "")
	if err := errors.Join(c.SetDeleteElements(m.svc, []nftables.SetElement{right}),
		c.SetAddElements(m.svc, []nftables.SetElement{wrong}), c.Flush()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.program(d, table(s, wide))
	equalCounts(t, "after the repair", r.Spread(r.Node, "tcp", "10.96.3.7:80", 4), map[string]int{"10.1.0.2:80": 4})
}

func FuzzParseElement(f *testing.F) {
	key := lb.Key{VIP: vip4, Port: 80, Proto: state.TCP}
	f.Add([]byte{}, []byte{})
	for _, e := range []nftables.SetElement{
		serviceElement(key, class{slots: 2}, ""), slotElement(key, 1, netip.MustParseAddrPort("10.1.0.2:80")),
		classElement(class{slots: 2}),
	} {
		f.Add(e.Key, e.Val)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		for _, all := range []bool{false, true} {
			_, _ = parseBackend(value, 0, all)
		}
		if c, err := parseClass(key, 0); err == nil && c.name() == "" {
			t.Error("a class without a name")
		}
	})
}
