package nftconn

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/state"
)

func FuzzDecodeElements(f *testing.F) {
	f.Add([]byte{})
	for _, e := range sampleElements() {
		f.Add(elementMessage(f, e))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		_ = decodeElements(msg, func(e *Element) error {
			for _, all := range []bool{false, true} {
				if k, rest, err := ParseKey(e.Key, 0, all); err == nil && len(rest) == 0 && k.Port != 0 && !all {
					if again, _, err := ParseKey(ServiceKey(k), 0, all); err != nil || again != k {
						t.Errorf("%v comes back as %v, %v", k, again, err)
					}
				}
			}
			return nil
		})
		in := answer{
			seq: 1, dump: true,
			each: func(msg []byte) error { return decodeElements(msg, func(*Element) error { return nil }) },
		}
		_ = in.take(msg)
	})
}

// elementMessage is what the kernel answers about a map with one element.
func elementMessage(t testing.TB, e nftables.SetElement) []byte {
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
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte("svc4\x00")},
		netlink.Attribute{
			Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS,
			Data: nest(netlink.Attribute{Type: unix.NFTA_LIST_ELEM, Data: elem}),
		})
}

// What the kernel answers is understood.
func TestDecodeElements(t *testing.T) {
	for _, want := range sampleElements() {
		n := 0
		err := decodeElements(elementMessage(t, want), func(e *Element) error {
			n++
			chain := ""
			if want.VerdictData != nil {
				chain = want.VerdictData.Chain
			}
			if !bytes.Equal(e.Key, want.Key) || !bytes.Equal(e.Value, want.Val) || string(e.Chain) != chain ||
				string(e.Comment) != want.Comment || e.Packets != 7 {
				t.Errorf("got %+v, want %+v with 7 packets", e, want)
			}
			return nil
		})
		if err != nil || n != 1 {
			t.Errorf("%d elements, %v", n, err)
		}
	}
}

// sampleElements are one of a map and one of a map of verdicts.
func sampleElements() []nftables.SetElement {
	key := lb.Key{VIP: netip.MustParseAddr("10.96.3.7"), Port: 80, Proto: state.TCP}
	return []nftables.SetElement{
		{Key: ServiceKey(key), Val: []byte{0, 1, 44, 12}, Comment: "wrr weight 5"},
		{Key: []byte{0, 1, 44, 12}, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: "rr4_300_3"}},
	}
}
