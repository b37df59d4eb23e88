package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"meshd/lb/nftconn"
	"meshd/state"
)

// Kernel is conntrack's table of one network namespace. It is used by one goroutine at
// a time.
type Kernel struct {
	conn       *nftconn.Conn
	unfiltered bool // the kernel gave all connections when it was asked for some
}

// New returns the table that a connection leads to.
func New(conn *nftconn.Conn) *Kernel { return &Kernel{conn: conn} }

// Flow is a connection as conntrack knows it, as far as it matters here.
type Flow struct {
	VIP      netip.AddrPort // where the client sent its first packet
	Backend  netip.AddrPort // where the answers come from
	Proto    state.Proto
	tcpState byte // 0 for other protocols
}

// Name names one connection to the kernel: its first direction, zone and
// number, as the kernel wrote them.
type Name []netlink.Attribute

// synSent is conntrack's state of a TCP connection that was not answered yet.
const synSent = 1

// tcpTimeWait is the first of conntrack's states in which a TCP connection has
// ended.
const tcpTimeWait = 7

func (f *Flow) ended() bool { return f.tcpState >= tcpTimeWait }

// keys returns the keys under which a connection may be known: as one of a
// service with ports and as one of a service for all ports.
func (f *Flow) keys() (exact, wide Key) {
	exact = Key{VIP: f.VIP, Proto: f.Proto, Backend: f.Backend}
	wide = Key{
		VIP: netip.AddrPortFrom(f.VIP.Addr(), 0), Proto: f.Proto,
		Backend: netip.AddrPortFrom(f.Backend.Addr(), 0),
	}
	return exact, wide
}

func toAddr(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// Flows calls each with every connection of an address family, or only with
// those to one IPv4 address; name is for forget. It reads a tenth of what
// vishvananda/netlink reads of each, and keeps nothing: there may be a million.
// A kernel that cannot tell them apart gives errUnfiltered, and each may have
// been called.
func (k *Kernel) Flows(family byte, to netip.Addr, each func(f *Flow, name func() Name)) error {
	var filter []netlink.Attribute
	if to.IsValid() {
		if k.unfiltered {
			return errUnfiltered
		}
		var err error
		if filter, err = flowsTo(to); err != nil {
			return err
		}
	}
	const question = nftconn.SubsystemConntrack | nl.IPCTNL_MSG_CT_GET
	err := k.conn.Ask(question, family, netlink.Dump, filter, func(msg []byte) error {
		f, err := decodeFlow(msg)
		switch {
		case err != nil:
			return err
		case to.IsValid() && f.VIP.Addr() != to:
			return errUnfiltered
		}
		each(&f, func() Name { return nameOf(msg) })
		return nil
	})
	if to.IsValid() && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
		err = fmt.Errorf("%w: %w", errUnfiltered, err)
	}
	k.unfiltered = k.unfiltered || errors.Is(err, errUnfiltered)
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
func nameOf(msg []byte) (name Name) {
	_ = nftconn.EachAttribute(msg, func(kind uint16, data []byte) error {
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

// Forget makes conntrack forget a connection. One that has ended meanwhile is
// no error.
func (k *Kernel) Forget(family byte, name Name) error {
	const question = nftconn.SubsystemConntrack | nl.IPCTNL_MSG_CT_DELETE
	err := k.conn.Ask(question, family, netlink.Acknowledge, name, func([]byte) error { return nil })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func decodeFlow(msg []byte) (f Flow, err error) {
	err = nftconn.EachAttribute(msg, func(kind uint16, data []byte) (err error) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			_, f.VIP, f.Proto, err = decodeTuple(data)
		case nl.CTA_TUPLE_REPLY:
			f.Backend, _, _, err = decodeTuple(data)
		case nl.CTA_PROTOINFO:
			err = f.decodeProto(data)
		}
		return err
	})
	if err == nil && (!f.VIP.IsValid() || !f.Backend.IsValid()) {
		err = errors.New("connection without addresses")
	}
	return f, err
}

// decodeTuple returns one direction of a connection.
func decodeTuple(b []byte) (src, dst netip.AddrPort, proto state.Proto, err error) {
	var from, to netip.Addr
	var fromPort, toPort uint16
	err = nftconn.EachAttribute(b, func(kind uint16, data []byte) error {
		return nftconn.EachAttribute(data, func(field uint16, data []byte) error {
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

func (f *Flow) decodeProto(b []byte) error {
	return nftconn.EachAttribute(b, func(kind uint16, data []byte) error {
		if kind != nl.CTA_PROTOINFO_TCP {
			return nil
		}
		return nftconn.EachAttribute(data, func(kind uint16, data []byte) error {
			if kind == nl.CTA_PROTOINFO_TCP_STATE && len(data) == 1 {
				f.tcpState = data[0]
			}
			return nil
		})
	})
}
