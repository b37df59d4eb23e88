package state

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// This file owns how the body of a record is encoded.

// Record bodies are a list of fields: tag (one byte), length (uvarint), bytes.
// Unknown tags are skipped on reading and the body is kept as it came, so a
// newer node's fields survive relaying (S11).

// MaxBody bounds one record's body; a larger one is refused at the owner and
// quarantined at receivers (G7, S13).
const MaxBody = 4096

var errBody = errors.New("malformed record body")

func putField(b []byte, tag byte, v ...byte) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func putString(b []byte, tag byte, v string) []byte {
	if v == "" {
		return b
	}
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func putUint(b []byte, tag byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return putField(b, tag, binary.AppendUvarint(nil, v)...)
}

func putAddr(b []byte, tag byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	return putField(b, tag, a.AsSlice()...)
}

func putPrefix(b []byte, tag byte, p netip.Prefix) []byte {
	if !p.IsValid() {
		return b
	}
	return putField(b, tag, append(p.Addr().AsSlice(), byte(p.Bits()))...)
}

// uvarint reads a uvarint from s. n ≤ 0 means malformed, as encoding/binary.
func uvarint(s string) (v uint64, n int) {
	var shift uint
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		c := s[i]
		if c < 0x80 {
			if i == binary.MaxVarintLen64-1 && c > 1 {
				return 0, -1
			}
			return v | uint64(c)<<shift, i + 1
		}
		v |= uint64(c&0x7f) << shift
		shift += 7
	}
	return 0, -1
}

// eachField calls f for every field of body until f returns an error.
func eachField(body string, f func(tag byte, v string) error) error {
	for len(body) > 0 {
		tag := body[0]
		n, w := uvarint(body[1:])
		if w <= 0 || n > uint64(len(body)-1-w) {
			return errBody
		}
		v := body[1+w : 1+w+int(n)]
		body = body[1+w+int(n):]
		if err := f(tag, v); err != nil {
			return err
		}
	}
	return nil
}

// findField returns the value of the first field with the tag, without allocating.
func findField(body string, tag byte) (string, bool) {
	for len(body) > 0 {
		t := body[0]
		n, w := uvarint(body[1:])
		if w <= 0 || n > uint64(len(body)-1-w) {
			return "", false
		}
		if t == tag {
			return body[1+w : 1+w+int(n)], true
		}
		body = body[1+w+int(n):]
	}
	return "", false
}

func fieldUint(v string) (uint64, error) {
	n, w := uvarint(v)
	if w != len(v) {
		return 0, errBody
	}
	return n, nil
}

func fieldAddr(v string) (netip.Addr, error) {
	switch len(v) {
	case 4:
		return netip.AddrFrom4([4]byte([]byte(v))), nil
	case 16:
		return netip.AddrFrom16([16]byte([]byte(v))), nil
	}
	return netip.Addr{}, errBody
}

// fieldTaskAddr reads an address that a task or a service may have.
func fieldTaskAddr(v string) (netip.Addr, error) {
	a, err := fieldAddr(v)
	if err == nil && CheckTaskAddr(a) != nil {
		err = errBody
	}
	return a, err
}

func fieldPort(v string) (Port, error) {
	if len(v) < 3 {
		return Port{}, errBody
	}
	p := Port{Number: uint16(v[0])<<8 | uint16(v[1]), Proto: Proto(v[2])}
	return p, p.readName(v[3:])
}

// readName takes the name of a port from its field.
func (p *Port) readName(name string) error {
	if name != "" && checkLabel(name) != nil {
		return errBody
	}
	if hasLetter(name) { // else it could pass for a number in SRV
		p.Name = name
	}
	return nil
}

// fieldMapped reads a port with a target: its number, protocol, target and name.
func fieldMapped(v string) (Port, error) {
	if len(v) < 5 {
		return Port{}, errBody
	}
	p, err := fieldPort(v[:3])
	p.Target = uint16(v[3])<<8 | uint16(v[4])
	switch {
	case err != nil || p.Target == 0:
		return Port{}, errBody
	case p.Target == p.Number:
		p.Target = 0
	}
	return p, p.readName(v[5:])
}

// portOf reads a port from a field of an endpoint; ok is false for other fields, and for
// ports of protocols that this version does not know.
func portOf(tag byte, v string) (p Port, ok bool) {
	switch tag {
	case tagPort:
		p, _ = fieldPort(v)
	case tagMapped:
		p, _ = fieldMapped(v)
	}
	return p, p.Proto.known()
}

func fieldPrefix(v string) (netip.Prefix, error) {
	if len(v) != 5 && len(v) != 17 {
		return netip.Prefix{}, errBody
	}
	a, err := fieldAddr(v[:len(v)-1])
	if err != nil {
		return netip.Prefix{}, err
	}
	p := netip.PrefixFrom(a, int(v[len(v)-1]))
	if !p.IsValid() || p != p.Masked() {
		return netip.Prefix{}, errBody
	}
	return p, nil
}

// Field tags of an endpoint body. Never reuse a number.
const (
	tagIP4 byte = iota + 1
	tagIP6
	tagPort
	tagWeight
	tagSlot
	tagName
	tagHostname
	tagAlias
	tagHealth
	tagDraining
	tagMapped
)

// noPort is a port of no protocol. It stands before ports with targets: versions that
// do not know those leave them out, and would take an endpoint without any other port
// for one that is at all ports of its service. With a port of a protocol that they do
// not know they do not show it (S18, L16).
const noPort = "\x00\x00\x00"

// AppendEndpoint appends the record body of e. ID and Service travel as the
// record's key and group, Owner as the stream's.
func AppendEndpoint(b []byte, e *Endpoint) []byte {
	b = putAddr(b, tagIP4, e.IP4)
	b = putAddr(b, tagIP6, e.IP6)
	b = appendPorts(b, e.Ports)
	if e.Weight > 1 {
		b = putUint(b, tagWeight, uint64(e.Weight))
	}
	b = putUint(b, tagSlot, uint64(e.Slot))
	b = putString(b, tagName, e.Name)
	b = putString(b, tagHostname, e.Hostname)
	for _, a := range e.Aliases {
		b = putString(b, tagAlias, a)
	}
	b = putUint(b, tagHealth, uint64(e.Health))
	if e.Draining {
		b = putUint(b, tagDraining, 1)
	}
	return b
}

// appendPorts appends the fields of ports, in their order.
func appendPorts(b []byte, ports []Port) []byte {
	marked := false
	for _, p := range ports {
		v := []byte{byte(p.Number >> 8), byte(p.Number), byte(p.Proto)}
		if p.Target == 0 {
			b = putField(b, tagPort, append(v, p.Name...)...)
			continue
		}
		if !marked {
			b, marked = putString(b, tagPort, noPort), true
		}
		b = putField(b, tagMapped, append(append(v, byte(p.Target>>8), byte(p.Target)), p.Name...)...)
	}
	return b
}

// ParseEndpoint decodes a record body. Unknown fields are ignored. The result
// is validated except for key and group, which the caller supplies.
func ParseEndpoint(body string) (Endpoint, error) {
	e := Endpoint{Weight: 1}
	if err := e.parse(body); err != nil {
		return Endpoint{}, err
	}
	return e, nil
}

// parse fills e from a body; what e has of ports and aliases is kept.
func (e *Endpoint) parse(body string) error {
	if err := eachField(body, e.setField); err != nil {
		return err
	}
	if len(e.Ports) > MaxPorts || len(e.Aliases) > MaxAliases {
		return errBody
	}
	return e.validateAddrs()
}

func (e *Endpoint) setField(tag byte, v string) (err error) {
	var n uint64
	switch tag {
	case tagIP4:
		if e.IP4.IsValid() {
			return errBody // a second one
		}
		e.IP4, err = fieldAddr(v)
	case tagIP6:
		if e.IP6.IsValid() {
			return errBody
		}
		e.IP6, err = fieldAddr(v)
	case tagPort, tagMapped:
		return e.addPort(tag, v)
	case tagName, tagHostname, tagAlias:
		if CheckTaskName(v) != nil {
			return checkUnshown(v)
		}
		switch tag {
		case tagName:
			e.Name = v
		case tagHostname:
			e.Hostname = v
		default:
			e.Aliases = append(e.Aliases, v)
		}
	case tagWeight, tagSlot, tagHealth, tagDraining:
		if n, err = fieldUint(v); err != nil {
			return err
		}
		return e.setNumber(tag, n)
	}
	return err
}

func (e *Endpoint) addPort(tag byte, v string) error {
	read := fieldPort
	if tag == tagMapped {
		read = fieldMapped
	}
	p, err := read(v)
	switch {
	case err != nil:
		return errBody
	case !p.Proto.known(): // of a newer version: the port is not shown, the endpoint is, if it has others
		e.strange = true
	default:
		e.Ports = append(e.Ports, p)
	}
	return nil
}

// checkUnshown tells a name that is left out from a body that is malformed: one
// that this version refuses to resolve may have been allowed where it was made.
func checkUnshown(name string) error {
	if CheckDotted(name) != nil {
		return errBody
	}
	return nil
}

func (e *Endpoint) setNumber(tag byte, n uint64) error {
	switch tag {
	case tagWeight:
		if n == 0 || n > 65535 {
			return errBody
		}
		e.Weight = uint16(n)
	case tagSlot:
		if n > 1<<32-1 {
			return errBody
		}
		e.Slot = uint32(n)
	case tagHealth:
		e.Health = Health(min(n, uint64(HealthFailing))) // an unknown health is not served
	case tagDraining:
		e.Draining = n != 0
	}
	return nil
}
