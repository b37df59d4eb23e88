package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"meshd/state"
)

// flow is a connection as conntrack knows it, as far as it matters here.
type flow struct {
	vip      netip.AddrPort // where the client sent its first packet
	backend  netip.AddrPort // where the answers come from
	proto    state.Proto
	tcpState byte // 0 for other protocols
}

// flowName names one connection to the kernel: its first direction, zone and
// number, as the kernel wrote them.
type flowName []netlink.Attribute

// tcpTimeWait is the first of conntrack's states in which a TCP connection has
// ended.
const tcpTimeWait = 7

func (f *flow) ended() bool { return f.tcpState >= tcpTimeWait }

// keys returns the keys under which a connection may be known: as one of a
// service with ports and as one of a service for all ports.
func (f *flow) keys() (exact, wide flowKey) {
	exact = flowKey{vip: f.vip, proto: f.proto, backend: f.backend}
	wide = flowKey{
		vip: netip.AddrPortFrom(f.vip.Addr(), 0), proto: f.proto,
		backend: netip.AddrPortFrom(f.backend.Addr(), 0),
	}
	return exact, wide
}

func toAddr(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// flows calls each with every connection of an address family, or only with
// those to one IPv4 address; name is for forget. It reads a tenth of what
// vishvananda/netlink reads of each, and keeps nothing: there may be a million.
// A kernel that cannot tell them apart gives errUnfiltered, and each may have
// been called.
func (a *asker) flows(family byte, to netip.Addr, each func(f *flow, name func() flowName)) error {
	var filter []netlink.Attribute
	if to.IsValid() {
		if a.unfiltered {
			return errUnfiltered
		}
		var err error
		if filter, err = flowsTo(to); err != nil {
			return err
		}
	}
	err := a.ask(conntrack|nl.IPCTNL_MSG_CT_GET, family, netlink.Dump, filter, func(msg []byte) error {
		f, err := decodeFlow(msg)
		switch {
		case err != nil:
			return err
		case to.IsValid() && f.vip.Addr() != to:
			return errUnfiltered
		}
		each(&f, func() flowName { return nameOf(msg) })
		return nil
	})
	if to.IsValid() && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
		err = fmt.Errorf("%w: %w", errUnfiltered, err)
	}
	a.unfiltered = a.unfiltered || errors.Is(err, errUnfiltered)
	return err
}

// errUnfiltered says that the kernel does not know CTA_FILTER, which came with
// Linux 5.8: older ones pass over it and answer with everything.
var errUnfiltered = errors.New("the kernel cannot filter connections")

// What package nl and the kernel's public headers do not name: bits of
// CTA_FILTER_ORIG_FLAGS, which say what of CTA_TUPLE_ORIG must be equal.
const (
	ctaFilter          = 25
	ctaFilterOrigFlags = 1
	filterIPDst        = 1 << 1
)

// flowsTo asks for the connections whose first packet went to an IPv4 address.
func flowsTo(to netip.Addr) ([]netlink.Attribute, error) {
	ip, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: nl.CTA_IP_V4_DST, Data: to.AsSlice()}})
	if err != nil {
		return nil, err
	}
	tuple, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NLA_F_NESTED | nl.CTA_TUPLE_IP, Data: ip}})
	if err != nil {
		return nil, err
	}
	flags, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: ctaFilterOrigFlags, Data: binary.NativeEndian.AppendUint32(nil, filterIPDst)},
	})
	if err != nil {
		return nil, err
	}
	return []netlink.Attribute{
		{Type: unix.NLA_F_NESTED | nl.CTA_TUPLE_ORIG, Data: tuple},
		{Type: unix.NLA_F_NESTED | ctaFilter, Data: flags},
	}, nil
}

// nameOf copies the name of the connection in a message that was decoded.
func nameOf(msg []byte) (name flowName) {
	_ = eachAttr(msg, func(kind uint16, data []byte) error {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			name = append(name, netlink.Attribute{Type: unix.NLA_F_NESTED | nl.CTA_TUPLE_ORIG, Data: slices.Clone(data)})
		case nl.CTA_ID, nl.CTA_ZONE:
			name = append(name, netlink.Attribute{Type: kind, Data: slices.Clone(data)})
		}
		return nil
	})
	return name
}

// forget makes conntrack forget a connection. One that has ended meanwhile is
// no error.
func (a *asker) forget(family byte, name flowName) error {
	err := a.ask(conntrack|nl.IPCTNL_MSG_CT_DELETE, family, netlink.Acknowledge, name, func([]byte) error { return nil })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func decodeFlow(msg []byte) (f flow, err error) {
	err = eachAttr(msg, func(kind uint16, data []byte) (err error) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			_, f.vip, f.proto, err = decodeTuple(data)
		case nl.CTA_TUPLE_REPLY:
			f.backend, _, _, err = decodeTuple(data)
		case nl.CTA_PROTOINFO:
			err = f.decodeProto(data)
		}
		return err
	})
	if err == nil && (!f.vip.IsValid() || !f.backend.IsValid()) {
		err = errors.New("connection without addresses")
	}
	return f, err
}

// decodeTuple returns one direction of a connection.
func decodeTuple(b []byte) (src, dst netip.AddrPort, proto state.Proto, err error) {
	var from, to netip.Addr
	var fromPort, toPort uint16
	err = eachAttr(b, func(kind uint16, data []byte) error {
		return eachAttr(data, func(field uint16, data []byte) error {
			switch {
			case kind == nl.CTA_TUPLE_IP && (field == nl.CTA_IP_V4_SRC || field == nl.CTA_IP_V6_SRC):
				from = toAddr(data)
			case kind == nl.CTA_TUPLE_IP && (field == nl.CTA_IP_V4_DST || field == nl.CTA_IP_V6_DST):
				to = toAddr(data)
			case kind == nl.CTA_TUPLE_PROTO && field == nl.CTA_PROTO_NUM && len(data) == 1:
				proto = state.Proto(data[0])
			case kind == nl.CTA_TUPLE_PROTO && field == nl.CTA_PROTO_SRC_PORT && len(data) == 2:
				fromPort = binary.BigEndian.Uint16(data)
			case kind == nl.CTA_TUPLE_PROTO && field == nl.CTA_PROTO_DST_PORT && len(data) == 2:
				toPort = binary.BigEndian.Uint16(data)
			}
			return nil
		})
	})
	return netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort), proto, err
}

func (f *flow) decodeProto(b []byte) error {
	return eachAttr(b, func(kind uint16, data []byte) error {
		if kind != nl.CTA_PROTOINFO_TCP {
			return nil
		}
		return eachAttr(data, func(kind uint16, data []byte) error {
			if kind == nl.CTA_PROTOINFO_TCP_STATE && len(data) == 1 {
				f.tcpState = data[0]
			}
			return nil
		})
	})
}
