package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"meshd/lb"
	"meshd/state"
)

// Elements are concatenations: every part is padded to 4 bytes.

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		raw := a.As4()
		return append(b, raw[:]...)
	}
	raw := a.As16()
	return append(b, raw[:]...)
}

func appendPort(b []byte, port uint16) []byte { return append(b, byte(port>>8), byte(port), 0, 0) }

// serviceKey returns the key of the service's element in svc or all.
func serviceKey(k lb.Key) []byte {
	b := append(appendAddr(make([]byte, 0, 28), k.VIP), byte(k.Proto), 0, 0, 0)
	if k.AllPorts() {
		return b
	}
	return appendPort(b, k.Port)
}

// serviceElement returns the element of svc or all. That of a service without
// anything to pick from has class number 0, which no map knows: its packets go
// on to the guard.
func serviceElement(k lb.Key, cl class, note string) nftables.SetElement {
	return nftables.SetElement{Key: serviceKey(k), Val: binary.BigEndian.AppendUint32(nil, cl.number()), Comment: note}
}

func classElement(cl class) nftables.SetElement {
	return nftables.SetElement{
		Key:         binary.BigEndian.AppendUint32(nil, cl.number()),
		VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: cl.name()},
	}
}

// slotElement returns one element of eps or alleps.
func slotElement(k lb.Key, slot int, backend netip.AddrPort) nftables.SetElement {
	e := nftables.SetElement{Key: binary.NativeEndian.AppendUint32(serviceKey(k), uint32(slot))}
	e.Val = appendAddr(make([]byte, 0, 20), backend.Addr())
	if !k.AllPorts() {
		e.Val = appendPort(e.Val, backend.Port())
	}
	return e
}

// parseKey is the inverse of serviceKey; rest is what follows.
func parseKey(b []byte, family int, all bool) (k lb.Key, rest []byte, err error) {
	size := int(families[family].size)
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

// parseBackend is the inverse of the value in slotElement.
func parseBackend(b []byte, family int, all bool) (netip.AddrPort, error) {
	size := int(families[family].size)
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
