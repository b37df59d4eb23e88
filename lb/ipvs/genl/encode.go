package genl

import "encoding/binary"

// Header sizes in bytes, and the flags of a message's header
// (linux/netlink.h, linux/genetlink.h).
const (
	headerLen     = 16
	genHeaderLen  = 4
	attrHeaderLen = 4

	flagRequest = 0x1
	flagMulti   = 0x2
	flagAck     = 0x4
	flagIntr    = 0x10 // NLM_F_DUMP_INTR
	flagDump    = 0x300

	nested = 0x8000 // bit of an attribute's type

	version = 1 // of IPVS' messages
)

// Attributes at the top level (IPVS_CMD_ATTR_*).
const (
	attrService     = 1
	attrDestination = 2
)

// Attributes of a service (IPVS_SVC_ATTR_*).
const (
	svcFamily    = 1
	svcProto     = 2
	svcAddr      = 3
	svcPort      = 4
	svcMark      = 5
	svcScheduler = 6
	svcFlags     = 7
	svcTimeout   = 8
	svcNetmask   = 9
	svcStats     = 10
	svcStats64   = 12
)

// Attributes of a destination (IPVS_DEST_ATTR_*).
const (
	destAddr    = 1
	destPort    = 2
	destForward = 3
	destWeight  = 4
	destUpper   = 5
	destLower   = 6
	destActive  = 7
	destInact   = 8
	destStats   = 10
	destFamily  = 11
	destStats64 = 12
)

var native = binary.NativeEndian

// appendMessage appends the message of one request.
func appendMessage(b []byte, family, flags uint16, seq uint32, r *Request) []byte {
	start := len(b)
	b = appendHeader(b, family, flagRequest|flags, seq, r.Command)
	switch r.Command {
	case NewService, SetService:
		b = appendService(b, &r.Service, true)
	case NewDestination, SetDestination, DelDestination:
		b = appendDestination(appendService(b, &r.Service, false), &r.Destination)
	case DelService, getService, getDestination:
		b = appendService(b, &r.Service, false)
	}
	native.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// appendHeader appends both headers; the length is the caller's to set.
func appendHeader(b []byte, family, flags uint16, seq uint32, c Command) []byte {
	b = native.AppendUint32(b, headerLen+genHeaderLen)
	b = native.AppendUint16(b, family)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0) // port: the kernel knows
	return append(b, byte(c), version, 0, 0)
}

func appendService(b []byte, s *Service, settings bool) []byte {
	start := len(b)
	b = attr(b, nested|attrService, 0)
	b = appendU16(b, svcFamily, uint16(s.Family))
	if s.Mark != 0 {
		b = appendU32(b, svcMark, s.Mark)
	} else {
		b = appendU16(b, svcProto, uint16(s.Proto))
		b = appendBytes(b, svcAddr, s.Addr.AsSlice())
		b = appendPort(b, svcPort, s.Port)
	}
	if settings {
		b = appendString(b, svcScheduler, s.Scheduler)
		b = attr(b, svcFlags, 8)
		b = native.AppendUint32(b, s.Flags)
		b = native.AppendUint32(b, ^uint32(0)) // mask: all flags are set or cleared
		b = appendU32(b, svcTimeout, s.Timeout)
		b = appendU32(b, svcNetmask, s.Netmask)
	}
	native.PutUint16(b[start:], uint16(len(b)-start))
	return b
}

// appendDestination writes the address with its family: without it, the kernel
// takes the service's, and reads the beginning of an IPv6 address as IPv4.
func appendDestination(b []byte, d *Destination) []byte {
	start := len(b)
	b = attr(b, nested|attrDestination, 0)
	b = appendBytes(b, destAddr, d.Addr.Addr().AsSlice())
	b = appendPort(b, destPort, d.Addr.Port())
	b = appendU32(b, destForward, uint32(d.Forward))
	b = appendU32(b, destWeight, d.Weight)
	b = appendU32(b, destUpper, 0) // no limits on connections
	b = appendU32(b, destLower, 0)
	b = appendU16(b, destFamily, uint16(FamilyOf(d.Addr.Addr())))
	native.PutUint16(b[start:], uint16(len(b)-start))
	return b
}

// attr appends the header of an attribute with n bytes of value.
func attr(b []byte, kind uint16, n int) []byte {
	b = native.AppendUint16(b, uint16(attrHeaderLen+n))
	return native.AppendUint16(b, kind)
}

func appendU16(b []byte, kind, v uint16) []byte {
	return append(native.AppendUint16(attr(b, kind, 2), v), 0, 0)
}

func appendU32(b []byte, kind uint16, v uint32) []byte {
	return native.AppendUint32(attr(b, kind, 4), v)
}

// appendPort appends a port, which travels in network byte order.
func appendPort(b []byte, kind, v uint16) []byte {
	return append(binary.BigEndian.AppendUint16(attr(b, kind, 2), v), 0, 0)
}

func appendBytes(b []byte, kind uint16, v []byte) []byte {
	return pad(append(attr(b, kind, len(v)), v...), len(v))
}

func appendString(b []byte, kind uint16, v string) []byte {
	b = append(attr(b, kind, len(v)+1), v...)
	return pad(append(b, 0), len(v)+1)
}

// pad appends what is missing to a multiple of four after n bytes.
func pad(b []byte, n int) []byte {
	for ; n%4 != 0; n++ {
		b = append(b, 0)
	}
	return b
}
