package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"meshd/lb"
	"meshd/lb/nftconn"
)

// serviceElement returns the element of svc or all. That of a service without
// anything to pick from has class number 0, which no map knows: its packets go
// on to the guard.
func serviceElement(k lb.Key, cl class, comment string) nftables.SetElement {
	return nftables.SetElement{
		Key: nftconn.ServiceKey(k), Val: binary.BigEndian.AppendUint32(nil, cl.number()), Comment: comment,
	}
}

func classElement(cl class) nftables.SetElement {
	return nftables.SetElement{
		Key:         binary.BigEndian.AppendUint32(nil, cl.number()),
		VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: cl.name()},
	}
}

// slotElement returns one element of eps or alleps.
func slotElement(k lb.Key, slot int, backend netip.AddrPort) nftables.SetElement {
	e := nftables.SetElement{Key: binary.NativeEndian.AppendUint32(nftconn.ServiceKey(k), uint32(slot))}
	e.Val = nftconn.AppendAddr(make([]byte, 0, 20), backend.Addr())
	if !k.AllPorts() {
		e.Val = nftconn.AppendPort(e.Val, backend.Port())
	}
	return e
}

// parseBackend is the inverse of the value in slotElement.
func parseBackend(b []byte, family int, all bool) (netip.AddrPort, error) {
	size := int(nftconn.Families[family].Size)
	if len(b) < size || !all && len(b) < size+2 {
		return netip.AddrPort{}, fmt.Errorf("element value of %d bytes", len(b))
	}
	a, _ := netip.AddrFromSlice(b[:size])
	if all {
		return netip.AddrPortFrom(a, 0), nil
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[size:])), nil
}

// parseClass is the inverse of what serviceElement and classElement write. The
// zero class is that of services without anything to pick from.
func parseClass(b []byte, family int) (class, error) {
	if len(b) < 4 {
		return class{}, fmt.Errorf("class number of %d bytes", len(b))
	}
	n := binary.BigEndian.Uint32(b)
	if n == 0 {
		return class{}, nil
	}
	return classAt(n, family)
}

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
