package transport

import (
	"encoding/binary"
	"net/netip"
)

// This file owns the messages of memberlist's that this node gives its own memberlist.

// appendText appends one of msgpack's strings of up to 65,535 bytes.
func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(append(b, 0xda), uint16(len(s))), s...)
}

// appendNumber appends one of msgpack's numbers of 32 bits.
func appendNumber(b []byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0xce), n)
}

// DeadMessage is memberlist's message in which from says that a node is dead.
func DeadMessage(node, from string, inc uint32) []byte {
	b := appendText([]byte{msgDead, 0x83}, "Incarnation") // a map of three
	b = appendNumber(b, inc)
	b = appendText(appendText(b, "Node"), node)
	return appendText(appendText(b, "From"), from)
}

// AliveMessage is memberlist's message that a node is alive at an address. versions are
// those that memberlist states of itself: the least, the greatest and the present one of
// its protocol, and of its delegate's.
func AliveMessage(node string, addr netip.AddrPort, inc uint32, versions [6]byte) []byte {
	b := appendText([]byte{msgAlive, 0x86}, "Incarnation") // a map of six
	b = appendNumber(b, inc)
	b = appendText(appendText(b, "Node"), node)
	b = appendText(appendText(b, "Addr"), string(addr.Addr().AsSlice()))
	b = appendNumber(appendText(b, "Port"), uint32(addr.Port()))
	b = append(appendText(b, "Meta"), 0xc0) // none
	return appendText(appendText(b, "Vsn"), string(versions[:]))
}
