package genl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Types of messages that are not of a family.
const (
	typeError = 2
	typeDone  = 3
)

// message is one netlink message of an answer.
type message struct {
	kind  uint16
	flags uint16
	seq   uint32
	data  []byte // after the netlink header
}

// nextMessage returns the first message of b and what follows it.
func nextMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < headerLen {
		return m, nil, fmt.Errorf("%w: %d bytes instead of a header", ErrMalformed, len(b))
	}
	n := native.Uint32(b)
	if n < headerLen || uint64(n) > uint64(len(b)) {
		return m, nil, fmt.Errorf("%w: length %d in %d bytes", ErrMalformed, n, len(b))
	}
	m = message{kind: native.Uint16(b[4:]), flags: native.Uint16(b[6:]), seq: native.Uint32(b[8:]), data: b[headerLen:n]}
	return m, b[min((int(n)+3)&^3, len(b)):], nil
}

// errno returns the kernel's verdict in an error message or at the end of a
// dump: 0 or a positive errno.
func (m *message) errno() (int, error) {
	if len(m.data) < 4 {
		if m.kind == typeDone {
			return 0, nil
		}
		return 0, fmt.Errorf("%w: error without number", ErrMalformed)
	}
	code := int32(native.Uint32(m.data))
	if code > 0 || code < -4095 {
		return 0, fmt.Errorf("%w: error number %d", ErrMalformed, code)
	}
	return int(-code), nil
}

// attributes calls each for every attribute of b.
func attributes(b []byte, each func(kind uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < attrHeaderLen {
			return fmt.Errorf("%w: %d bytes instead of an attribute", ErrMalformed, len(b))
		}
		n := int(native.Uint16(b))
		if n < attrHeaderLen || n > len(b) {
			return fmt.Errorf("%w: attribute of length %d in %d bytes", ErrMalformed, n, len(b))
		}
		if err := each(native.Uint16(b[2:])&0x3fff, b[attrHeaderLen:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// body returns the attributes after the generic netlink header.
func (m *message) body() ([]byte, error) {
	if len(m.data) < genHeaderLen {
		return nil, fmt.Errorf("%w: %d bytes instead of a generic header", ErrMalformed, len(m.data))
	}
	return m.data[genHeaderLen:], nil
}

// inner returns what is nested in the attribute of that kind.
func (m *message) inner(want uint16) (raw []byte, err error) {
	b, err := m.body()
	if err != nil {
		return nil, err
	}
	err = attributes(b, func(kind uint16, v []byte) error {
		if kind == want {
			raw = v
		}
		return nil
	})
	return raw, err
}

// parseService decodes an answer about a service.
func parseService(m *message) (Service, error) {
	raw, err := m.inner(attrService)
	if err != nil {
		return Service{}, err
	}
	p := serviceParser{}
	if err := attributes(raw, p.attribute); err != nil {
		return Service{}, err
	}
	return p.finish()
}

// serviceParser gathers the attributes of a service, in whatever order.
type serviceParser struct {
	svc   Service
	addr  []byte
	is64  bool
	stats Stats // the 32-bit ones
}

func (p *serviceParser) attribute(kind uint16, v []byte) error {
	switch kind {
	case svcFamily, svcProto, svcPort:
		if len(v) < 2 {
			return short(kind, v)
		}
	case svcMark, svcTimeout, svcNetmask, svcFlags:
		if len(v) < 4 {
			return short(kind, v)
		}
	}
	s := &p.svc
	switch kind {
	case svcFamily:
		s.Family = Family(native.Uint16(v))
	case svcProto:
		s.Proto = uint8(native.Uint16(v))
	case svcAddr:
		p.addr = v
	case svcPort:
		s.Port = binary.BigEndian.Uint16(v)
	case svcMark:
		s.Mark = native.Uint32(v)
	case svcScheduler:
		s.Scheduler = schedulerName(v)
	case svcFlags:
		s.Flags = native.Uint32(v)
	case svcTimeout:
		s.Timeout = native.Uint32(v)
	case svcNetmask:
		s.Netmask = native.Uint32(v)
	case svcStats:
		return parseStats(v, &p.stats)
	case svcStats64:
		p.is64 = true
		return parseStats(v, &s.Stats)
	}
	return nil
}

func short(kind uint16, v []byte) error {
	return fmt.Errorf("%w: attribute %d has %d bytes", ErrMalformed, kind, len(v))
}

// schedulerName returns the string without its end, without an allocation for
// the usual ones.
func schedulerName(v []byte) string {
	if i := bytes.IndexByte(v, 0); i >= 0 {
		v = v[:i]
	}
	for _, known := range [...]string{"wrr", "rr", "mh", "sh", "wlc", "lc", "sed", "nq", "dh"} {
		if string(v) == known {
			return known
		}
	}
	return string(v)
}

func (p *serviceParser) finish() (Service, error) {
	s := p.svc
	if !p.is64 { // before Linux 4.1
		s.Stats = p.stats
	}
	if s.Family != IPv4 && s.Family != IPv6 {
		return Service{}, fmt.Errorf("%w: service of address family %d", ErrMalformed, s.Family)
	}
	if s.Mark != 0 {
		s.ID = ByMark(s.Family, s.Mark)
		return s, nil
	}
	var err error
	s.Addr, err = address(s.Family, p.addr)
	return s, err
}

// address decodes an address, whose attribute has room for the longest.
func address(f Family, raw []byte) (netip.Addr, error) {
	size := 16
	if f == IPv4 {
		size = 4
	}
	if len(raw) < size {
		return netip.Addr{}, fmt.Errorf("%w: address of %d bytes", ErrMalformed, len(raw))
	}
	a, _ := netip.AddrFromSlice(raw[:size])
	return a, nil
}

// parseDestination decodes an answer about a destination of a service of that
// family, which old kernels take for the destination's.
func parseDestination(m *message, service Family) (DestinationState, error) {
	raw, err := m.inner(attrDestination)
	if err != nil {
		return DestinationState{}, err
	}
	p := destinationParser{family: service}
	if err := attributes(raw, p.attribute); err != nil {
		return DestinationState{}, err
	}
	return p.finish()
}

// destinationParser gathers the attributes of a destination, in whatever order.
type destinationParser struct {
	dest   DestinationState
	family Family
	addr   []byte
	port   uint16
	is64   bool
	stats  Stats // the 32-bit ones
}

func (p *destinationParser) attribute(kind uint16, v []byte) error {
	switch kind {
	case destPort, destFamily:
		if len(v) < 2 {
			return short(kind, v)
		}
	case destForward, destWeight, destActive, destInact:
		if len(v) < 4 {
			return short(kind, v)
		}
	}
	d := &p.dest
	switch kind {
	case destAddr:
		p.addr = v
	case destPort:
		p.port = binary.BigEndian.Uint16(v)
	case destForward:
		d.Forward = Forward(native.Uint32(v)) & forwardMask
	case destWeight:
		d.Weight = native.Uint32(v)
	case destActive:
		d.Active = native.Uint32(v)
	case destInact:
		d.Inactive = native.Uint32(v)
	case destFamily:
		p.family = Family(native.Uint16(v))
	case destStats:
		return parseStats(v, &p.stats)
	case destStats64:
		p.is64 = true
		return parseStats(v, &d.Stats)
	}
	return nil
}

func (p *destinationParser) finish() (DestinationState, error) {
	if !p.is64 {
		p.dest.Stats = p.stats
	}
	if p.family != IPv4 && p.family != IPv6 {
		return DestinationState{}, fmt.Errorf("%w: destination of address family %d", ErrMalformed, p.family)
	}
	a, err := address(p.family, p.addr)
	p.dest.Addr = netip.AddrPortFrom(a, p.port)
	return p.dest, err
}

// parseStats decodes counters, of 32 or 64 bits: both have the same numbers
// (IPVS_STATS_ATTR_*), and in both the bytes have 64 bits.
func parseStats(b []byte, s *Stats) error {
	fields := [...]*uint64{1: &s.Connections, 2: &s.PacketsIn, 3: &s.PacketsOut, 4: &s.BytesIn, 5: &s.BytesOut}
	return attributes(b, func(kind uint16, v []byte) error {
		if kind == 0 || int(kind) >= len(fields) {
			return nil // rates, padding
		}
		switch len(v) {
		case 8:
			*fields[kind] = native.Uint64(v)
		case 4:
			*fields[kind] = uint64(native.Uint32(v))
		default:
			return short(kind, v)
		}
		return nil
	})
}

// parseInfo decodes the answer to getInfo.
func parseInfo(m *message) (Info, error) {
	b, err := m.body()
	if err != nil {
		return Info{}, err
	}
	var in Info
	err = attributes(b, func(kind uint16, v []byte) error {
		field := map[uint16]*uint32{1: &in.Version, 2: &in.TableSize}[kind]
		if field == nil {
			return nil
		}
		if len(v) < 4 {
			return short(kind, v)
		}
		*field = native.Uint32(v)
		return nil
	})
	return in, err
}
