package hostwatch

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sizes and places in the headers of rtnetlink's messages, in bytes (rtnetlink(7)).
const (
	headerSize    = 12 // of rtmsg and fib_rule_hdr
	routeProtocol = 5
	linkType      = 2
)

// endsOurs reports whether a message of the kernel may announce the end of a route or a
// routing rule of ours. That is its removal, or a change with which routes go without
// a message of their own: the end of an address, which may be their source, or any
// change of a loopback device, which may have gone down.
func endsOurs(m netlink.Message) bool {
	switch m.Header.Type {
	case unix.RTM_DELROUTE:
		return len(m.Data) >= headerSize && m.Data[routeProtocol] == ownProtocol
	case unix.RTM_DELRULE:
		return ruleProtocol(m.Data) == ownProtocol
	case unix.RTM_DELADDR:
		return true
	case unix.RTM_NEWLINK:
		return len(m.Data) >= linkType+2 && binary.NativeEndian.Uint16(m.Data[linkType:]) == unix.ARPHRD_LOOPBACK
	}
	return false
}

// ruleProtocol returns the protocol of a routing rule, which says who made it; 0: not
// known.
func ruleProtocol(data []byte) uint8 {
	if len(data) < headerSize {
		return 0
	}
	attributes, err := netlink.NewAttributeDecoder(data[headerSize:])
	if err != nil {
		return 0
	}
	for attributes.Next() {
		if attributes.Type() == unix.FRA_PROTOCOL {
			return attributes.Uint8()
		}
	}
	return 0
}
