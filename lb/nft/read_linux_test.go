package nft

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/state"
)

var _ lb.Watchful = (*Driver)(nil)

// Elements that nobody of ours can have written go, and keep nothing from
// being read.
func TestStrayElements(t *testing.T) {
	r := newRig(t)
	r.serve(r.peer, "10.1.0.2:80")
	d := r.driver()
	s := service(vip4, 80, state.TCP, "10.1.0.2:80")
	r.program(d, table(s))
	m, c := &d.layout.maps[0], d.help.sock.nft
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
	r.serve(r.peer, "10.1.0.2:80")
	d := r.driver()
	s := service(vip4, 80, state.TCP, "10.1.0.2:80")
	wide := service(vip4.Next(), 80, state.TCP, "10.1.0.2:80", "10.1.0.3:80")
	r.program(d, table(s, wide))
	m, c := &d.layout.maps[0], d.help.sock.nft
	right, wrong := serviceElement(s.Key, d.entries[s.Key].class, ""), serviceElement(s.Key, d.entries[wide.Key].class, "")
	if err := errors.Join(c.SetDeleteElements(m.svc, []nftables.SetElement{right}),
		c.SetAddElements(m.svc, []nftables.SetElement{wrong}), c.Flush()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.program(d, table(s, wide))
	equalCounts(t, "after the repair", r.spread(r.node, "tcp", "10.96.3.7:80", 4), map[string]int{"10.1.0.2:80": 4})
}

func FuzzDecodeElements(f *testing.F) {
	m := newLayout().maps[0]
	key := lb.Key{VIP: vip4, Port: 80, Proto: state.TCP}
	f.Add([]byte{})
	f.Add(elementMessage(f, m.svc, serviceElement(key, class{slots: 2}, "wrr weight 5")))
	f.Add(elementMessage(f, m.eps, slotElement(key, 1, service(vip4, 80, state.TCP, "10.1.0.2:80").Backends[0].Addr)))
	f.Add(elementMessage(f, m.class, classElement(class{slots: 2})))
	f.Fuzz(func(t *testing.T, msg []byte) {
		_ = decodeElements(msg, func(e *element) error {
			for _, all := range []bool{false, true} {
				if k, rest, err := parseKey(e.key, 0, all); err == nil && len(rest) == 0 && k.Port != 0 && !all {
					if again, _, err := parseKey(serviceKey(k), 0, all); err != nil || again != k {
						t.Errorf("%v comes back as %v, %v", k, again, err)
					}
				}
				_, _ = parseBackend(e.value, 0, all)
			}
			if c, err := parseClass(e.key, 0); err == nil && c.name() == "" {
				t.Error("a class without a name")
			}
			return nil
		})
		in := answer{
			seq: 1, dump: true,
			each: func(msg []byte) error { return decodeElements(msg, func(*element) error { return nil }) },
		}
		_ = in.take(msg)
	})
}

// elementMessage is what the kernel answers about a map with one element.
func elementMessage(t testing.TB, set *nftables.Set, e nftables.SetElement) []byte {
	nest := func(attrs ...netlink.Attribute) []byte {
		b, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	value := nest(netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: e.Val})
	if e.VerdictData != nil {
		value = nest(netlink.Attribute{Type: unix.NFTA_DATA_VERDICT, Data: nest(
			netlink.Attribute{Type: unix.NFTA_VERDICT_CHAIN, Data: []byte(e.VerdictData.Chain + "\x00")})})
	}
	counter := nest(netlink.Attribute{Type: unix.NFTA_COUNTER_PACKETS, Data: []byte{0, 0, 0, 0, 0, 0, 0, 7}})
	// behind a field of another type
	comment := append([]byte{1, 2, 0, 0, 0, byte(len(e.Comment) + 1)}, e.Comment+"\x00"...)
	elem := nest(
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_USERDATA, Data: comment},
		netlink.Attribute{
			Type: unix.NFTA_SET_ELEM_KEY,
			Data: nest(netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: e.Key}),
		},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_DATA, Data: value},
		netlink.Attribute{
			Type: unix.NFTA_SET_ELEM_EXPR,
			Data: nest(netlink.Attribute{Type: unix.NFTA_EXPR_DATA, Data: counter}),
		})
	return nest(
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set.Name + "\x00")},
		netlink.Attribute{
			Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS,
			Data: nest(netlink.Attribute{Type: unix.NFTA_LIST_ELEM, Data: elem}),
		})
}

// What the kernel answers is understood.
func TestDecodeElements(t *testing.T) {
	m := newLayout().maps[0]
	cl := class{slots: 300, shard: 3}
	for _, want := range []nftables.SetElement{
		serviceElement(lb.Key{VIP: vip4, Port: 80, Proto: state.TCP}, cl, "wrr weight 5"), classElement(cl),
	} {
		n := 0
		err := decodeElements(elementMessage(t, m.svc, want), func(e *element) error {
			n++
			chain := ""
			if want.VerdictData != nil {
				chain = want.VerdictData.Chain
			}
			if !bytes.Equal(e.key, want.Key) || !bytes.Equal(e.value, want.Val) || string(e.chain) != chain ||
				string(e.comment) != want.Comment || e.packets != 7 {
				t.Errorf("got %+v, want %+v with 7 packets", e, want)
			}
			return nil
		})
		if err != nil || n != 1 {
			t.Errorf("%d elements, %v", n, err)
		}
	}
}
