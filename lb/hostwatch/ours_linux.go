package hostwatch

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What the headers of rtnetlink's messages have where (rtnetlink(7)), in bytes.
const (
	headerSize    = 12 // of rtmsg and fib_rule_hdr
	routeProtocol = 5
	linkType      = 2
)

// endsOurs reports whether a message of the kernel may tell the end of a route
// or a routing rule of ours: its removal, or what changes routes without a word,
// the end of an address, which may be their source, and any change of a loopback
// device, which may have gone down.
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

// ruleProtocol returns who made a routing rule; 0: it does not say.
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
