package hostread

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// match reads a match of iptables, which its rules in nftables contain where nft has
// no expression of its own.
func (r *rule) match(data []byte) {
	name, info, revision := "", []byte(nil), uint32(0)
	eachAttribute(data, func(kind uint16, data []byte) {
		switch kind {
		case unix.NFTA_MATCH_NAME:
			name = cString(data)
		case unix.NFTA_MATCH_REV:
			revision = uint32Of(data)
		case unix.NFTA_MATCH_INFO:
			info = data
		}
	})
	r.xtMatch(name, revision, info)
}

// xtMatch understands a match of iptables.
func (r *rule) xtMatch(name string, revision uint32, info []byte) {
	switch {
	case name == "comment":
	case name == "conntrack" && revision >= 1 && revision <= 3:
		r.xtConntrack(info, revision)
	case name == "state" && len(info) >= 4:
		r.all = append(r.all, hostcheck.Condition{Field: hostcheck.State, Mask: xtState(binary.NativeEndian.Uint32(info))})
	case (name == "tcp" || name == "udp") && len(info) >= 8:
		r.xtPorts(name, info)
	case name == "addrtype" && revision == 1 && len(info) >= 8:
		r.xtAddressType(info)
	default:
		r.addUnknown()
	}
}

// xtNotDestination is the flag of a negated type of destination (xt_addrtype.h).
const xtNotDestination = 1 << 1

// xtAddressType understands types of the destination, without a bound to a device.
func (r *rule) xtAddressType(info []byte) {
	source, destination, flags := binary.NativeEndian.Uint16(info), binary.NativeEndian.Uint16(info[2:]),
		binary.NativeEndian.Uint32(info[4:])
	if source != 0 || destination == 0 || flags&^xtNotDestination != 0 {
		r.addUnknown()
		return
	}
	r.all = append(r.all, hostcheck.Condition{
		Field: hostcheck.DestinationType, Not: flags&xtNotDestination != 0,
		Mask: uint32(destination),
	})
}

// xtState returns the bits of conntrack's state in iptables' mask. They are those of
// nftables: invalid 1, established 2, related 4, new 8.
func xtState(mask uint32) uint32 {
	return mask & (hostcheck.StateInvalid | hostcheck.StateEstablished | hostcheck.StateRelated | hostcheck.StateNew)
}

// The flags of iptables' match of conntrack, and the places of its values in bytes
// (xt_conntrack.h).
const (
	xtState4      = 1 << 0
	xtOrigSrc     = 1 << 2
	xtOrigDst     = 1 << 3
	xtKnown       = xtState4 | xtOrigSrc | xtOrigDst
	xtAddress     = 16
	xtOrigSrcAt   = 0
	xtOrigDstAt   = 2 * xtAddress
	xtFlagsAt     = 8*xtAddress + 4 + 4 + 2 + 8
	xtInvertAt    = xtFlagsAt + 2
	xtStateAt     = xtFlagsAt + 4
	xtStateDNAT   = 1 << 7 // iptables counts translation as a state
	xtStateOthers = ^uint32(0xf | xtStateDNAT)
)

// xtConntrack understands states and original addresses.
func (r *rule) xtConntrack(info []byte, revision uint32) {
	if len(info) < xtStateAt+2 {
		r.addUnknown()
		return
	}
	flags, invert := binary.NativeEndian.Uint16(info[xtFlagsAt:]), binary.NativeEndian.Uint16(info[xtInvertAt:])
	state := uint32(info[xtStateAt])
	if revision > 1 {
		state = uint32(binary.NativeEndian.Uint16(info[xtStateAt:]))
	}
	if flags&^xtKnown != 0 {
		r.addUnknown()
	}
	if flags&xtState4 != 0 {
		r.xtStates(state, invert&xtState4 != 0)
	}
	r.xtAddress(info, xtOrigSrcAt, hostcheck.OriginalSource, flags&xtOrigSrc != 0, invert&xtOrigSrc != 0)
	r.xtAddress(info, xtOrigDstAt, hostcheck.OriginalDestination, flags&xtOrigDst != 0, invert&xtOrigDst != 0)
}

// xtStates adds a condition on the state, or on whether the destination was
// translated, which iptables counts as a state.
func (r *rule) xtStates(state uint32, not bool) {
	switch {
	case state == xtStateDNAT:
		r.all = append(r.all, hostcheck.Condition{Field: hostcheck.Status, Not: not, Mask: hostcheck.StatusDNAT})
	case state&(xtStateDNAT|xtStateOthers) != 0:
		r.addUnknown()
	default:
		r.all = append(r.all, hostcheck.Condition{Field: hostcheck.State, Not: not, Mask: xtState(state)})
	}
}

// xtAddress adds a condition on an address with a mask behind it, if it is there.
func (r *rule) xtAddress(info []byte, at int, field hostcheck.Field, there, not bool) {
	if !there {
		return
	}
	size := 4
	if r.family6() {
		size = 16
	}
	ones, ok := prefixLength(info[at+xtAddress:][:size])
	a, _ := netip.AddrFromSlice(slices.Clone(info[at:][:size]))
	p, err := a.Prefix(ones)
	if !ok || err != nil {
		r.addUnknown()
		return
	}
	r.all = append(r.all, hostcheck.Condition{Field: field, Not: not, Spans: []hostcheck.Span{hostcheck.SpanOf(p)}})
}

// xtPorts understands the ports of "-p tcp --dport 80", but not flags and options of
// TCP.
func (r *rule) xtPorts(name string, info []byte) {
	ports := [4]uint32{}
	for i := range ports {
		ports[i] = uint32(binary.NativeEndian.Uint16(info[2*i:]))
	}
	invert := info[8:]
	if name == "tcp" {
		if len(info) < 12 || info[8] != 0 || info[9] != 0 {
			r.addUnknown()
		}
		invert = info[min(11, len(info)):]
	}
	not := len(invert) > 0 && invert[0] != 0
	for i, field := range []hostcheck.Field{hostcheck.SourcePort, hostcheck.DestinationPort} {
		first, last := ports[2*i], ports[2*i+1]
		switch {
		case not:
			r.addUnknown()
		case first > 0 || last < 0xffff:
			r.all = append(r.all, hostcheck.Condition{Field: field, Numbers: []hostcheck.Numbers{{First: first, Last: last}}})
		}
	}
}
