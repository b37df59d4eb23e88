package resolver

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// asked is a question that the fast path can read.
type asked struct {
	end      int // of the question section
	qtype    uint16
	edns, do bool
	size     int // the client's UDP payload size
}

// parse reads a query and puts its key into f.key. It accepts less than the
// ordinary path, never more.
func (f *fastPath) parse(m []byte) (q asked, ok bool) {
	const qr, opcode, tc = 0x80, 0x78, 0x02
	if len(m) < 17 || m[2]&(qr|opcode|tc) != 0 || binary.BigEndian.Uint32(m[4:]) != 1<<16 || binary.BigEndian.Uint16(m[8:]) != 0 {
		return q, false
	}
	end, ok := f.parseName(m)
	if !ok || end+4 > len(m) || binary.BigEndian.Uint16(m[end+2:]) != dns.ClassINET {
		return q, false
	}
	q = asked{end: end + 4, qtype: binary.BigEndian.Uint16(m[end:]), size: dns.MinMsgSize}
	if q.qtype != dns.TypeA && q.qtype != dns.TypeAAAA {
		return q, false
	}
	f.key = append(f.key, m[end], m[end+1])
	switch binary.BigEndian.Uint16(m[10:]) {
	case 0:
		return q, q.end == len(m)
	case 1:
		return q, q.parseOPT(m[q.end:], f.server.cfg.MaxUDPPayload)
	}
	return q, false
}

// parseName puts the lower-case wire name into f.key and returns its end.
func (f *fastPath) parseName(m []byte) (end int, ok bool) {
	f.key = f.key[:0]
	for off := 12; off < len(m); {
		l := int(m[off])
		if l == 0 {
			f.key = append(f.key, 0)
			return off + 1, len(f.key) > 1
		}
		if l > 63 || off+1+l > len(m) || off+1+l > 12+254 {
			return 0, false
		}
		f.key = append(f.key, byte(l))
		for _, c := range m[off+1 : off+1+l] {
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			f.key = append(f.key, c)
		}
		off += 1 + l
	}
	return 0, false
}

// parseOPT reads the one additional record: an OPT of version 0 whose options
// are such that the ordinary path ignores their content.
func (q *asked) parseOPT(o []byte, maxUDP int) bool {
	if len(o) < 11 || o[0] != 0 || binary.BigEndian.Uint16(o[1:]) != dns.TypeOPT || o[5] != 0 || o[6] != 0 {
		return false
	}
	if int(binary.BigEndian.Uint16(o[9:])) != len(o)-11 {
		return false
	}
	for opts := o[11:]; len(opts) > 0; {
		if len(opts) < 4 {
			return false
		}
		code, l := binary.BigEndian.Uint16(opts), int(binary.BigEndian.Uint16(opts[2:]))
		if l > len(opts)-4 || code != dns.EDNS0COOKIE && code != dns.EDNS0PADDING {
			return false
		}
		opts = opts[4+l:]
	}
	q.edns, q.do = true, o[7]&0x80 != 0
	q.size = min(max(int(binary.BigEndian.Uint16(o[3:])), dns.MinMsgSize), maxUDP)
	return true
}

// write makes the query in buf the reply: id and question stay as they came.
func (f *fastPath) write(buf []byte, q *asked, p *packed) {
	const qr, aa, rd, ra, cd = 0x80, 0x04, 0x01, 0x80, 0x10
	buf[2] = qr | aa | buf[2]&rd
	buf[3] = ra | buf[3]&cd | p.rcode
	binary.BigEndian.PutUint32(buf[6:], p.counts)
	end := q.end
	if p.rrLen > 0 {
		cut := p.preferred * p.rrLen
		end += f.rotate(buf[end:], p.body[:cut], p.rrLen)
		end += f.rotate(buf[end:], p.body[cut:], p.rrLen)
	} else {
		end += copy(buf[end:], p.body)
	}
	buf[10], buf[11] = 0, 0
	if !q.edns {
		return
	}
	buf[11] = 1
	opt := [11]byte{2: byte(dns.TypeOPT), 3: byte(f.server.cfg.MaxUDPPayload >> 8), 4: byte(f.server.cfg.MaxUDPPayload)}
	if q.do {
		opt[7] = 0x80
	}
	copy(buf[end:], opt[:])
}

// rotate copies equal-sized records starting at a random one.
func (f *fastPath) rotate(dst, rrs []byte, rrLen int) int {
	n := len(rrs) / rrLen
	if n < 2 {
		return copy(dst, rrs)
	}
	f.rand = f.rand*6364136223846793005 + 1442695040888963407
	at := int((f.rand>>32)*uint64(n)>>32) * rrLen
	k := copy(dst, rrs[at:])
	return k + copy(dst[k:], rrs[:at])
}
