package nftconn

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"meshd/lb"
	"meshd/state"
)

// Elements are concatenations: every part is padded to 4 bytes.

// AppendAddr appends an address.
func AppendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		raw := a.As4()
		return append(b, raw[:]...)
	}
	raw := a.As16()
	return append(b, raw[:]...)
}

// AppendPort appends a port.
func AppendPort(b []byte, port uint16) []byte { return append(b, byte(port>>8), byte(port), 0, 0) }

// ServiceKey returns the key of a service: VIP . protocol . port, or VIP . protocol for
// all ports.
func ServiceKey(k lb.Key) []byte {
	b := append(AppendAddr(make([]byte, 0, 28), k.VIP), byte(k.Proto), 0, 0, 0)
	if k.AllPorts() {
		return b
	}
	return AppendPort(b, k.Port)
}

// ParseKey is the inverse of ServiceKey; rest is what follows.
func ParseKey(b []byte, family int, all bool) (k lb.Key, rest []byte, err error) {
	size := int(Families[family].Size)
	need := size + 4
	if !all {
		need += 4
	}
	if len(b) < need {
		return k, nil, fmt.Errorf("element key of %d bytes", len(b))
	}
	k.VIP, _ = netip.AddrFromSlice(b[:size])
	k.Proto = state.Proto(b[size])
	if !all {
		k.Port = binary.BigEndian.Uint16(b[size+4:])
	}
	return k, b[need:], nil
}
