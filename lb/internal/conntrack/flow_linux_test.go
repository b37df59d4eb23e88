package conntrack

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"

	"meshd/state"
)

// flowMessage is what the kernel tells of a connection.
func flowMessage(t testing.TB, want Flow) []byte {
	nest := func(attrs ...netlink.Attribute) []byte {
		b, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tuple := func(kind uint16, src, dst netip.AddrPort) netlink.Attribute {
		srcKind, dstKind := uint16(nl.CTA_IP_V4_SRC), uint16(nl.CTA_IP_V4_DST)
		if src.Addr().Is6() {
			srcKind, dstKind = nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
		}
		return netlink.Attribute{Type: kind, Data: nest(
			netlink.Attribute{Type: nl.CTA_TUPLE_IP, Data: nest(
				netlink.Attribute{Type: srcKind, Data: src.Addr().AsSlice()},
				netlink.Attribute{Type: dstKind, Data: dst.Addr().AsSlice()})},
			netlink.Attribute{Type: nl.CTA_TUPLE_PROTO, Data: nest(
				netlink.Attribute{Type: nl.CTA_PROTO_NUM, Data: []byte{byte(want.Proto)}},
				netlink.Attribute{Type: nl.CTA_PROTO_SRC_PORT, Data: binary.BigEndian.AppendUint16(nil, src.Port())},
				netlink.Attribute{Type: nl.CTA_PROTO_DST_PORT, Data: binary.BigEndian.AppendUint16(nil, dst.Port())})},
		)}
	}
	client := netip.AddrPortFrom(want.VIP.Addr().Next(), 40000)
	attrs := []netlink.Attribute{
		tuple(nl.CTA_TUPLE_ORIG, client, want.VIP),
		tuple(nl.CTA_TUPLE_REPLY, want.Backend, client),
	}
	if want.tcpState != 0 {
		tcp := nest(netlink.Attribute{Type: nl.CTA_PROTOINFO_TCP_STATE, Data: []byte{want.tcpState}})
		attrs = append(attrs, netlink.Attribute{
			Type: nl.CTA_PROTOINFO,
			Data: nest(netlink.Attribute{Type: nl.CTA_PROTOINFO_TCP, Data: tcp}),
		})
	}
	return nest(attrs...)
}

func sampleFlows() []Flow {
	return []Flow{
		{VIP: netip.MustParseAddrPort("10.96.0.1:80"), Backend: netip.MustParseAddrPort("10.1.0.2:8080"), Proto: state.TCP, tcpState: 3},
		{VIP: netip.MustParseAddrPort("10.96.0.1:80"), Backend: netip.MustParseAddrPort("10.1.0.2:8080"), Proto: state.TCP, tcpState: tcpTimeWait},
		{VIP: netip.MustParseAddrPort("[fd96::1]:53"), Backend: netip.MustParseAddrPort("[fd01::2]:5353"), Proto: state.UDP},
	}
}

func TestDecodeFlow(t *testing.T) {
	for _, want := range sampleFlows() {
		if got, err := decodeFlow(flowMessage(t, want)); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
		if want.ended() != (want.tcpState == tcpTimeWait) {
			t.Errorf("%+v has ended: %v", want, want.ended())
		}
	}
	if f, err := decodeFlow(nil); err == nil {
		t.Errorf("an empty message is %+v, want an error", f)
	}
}

func FuzzDecodeFlow(f *testing.F) {
	f.Add([]byte{})
	for _, s := range sampleFlows() {
		f.Add(flowMessage(f, s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		got, err := decodeFlow(msg)
		if err != nil {
			return
		}
		exact, wide := got.keys()
		if !got.VIP.IsValid() || !got.Backend.IsValid() || exact.Service().VIP != wide.Service().VIP ||
			!wide.Service().AllPorts() {
			t.Errorf("%+v has keys %+v and %+v", got, exact, wide)
		}
	})
}
