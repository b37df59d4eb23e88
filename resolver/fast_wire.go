package resolver

// This file owns the packet as the fast path reads it: it copies the question out
// of the receive buffer and changes nothing there.

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"unsafe"

	"github.com/miekg/dns"
)

// asked is a question that the fast path can read.
type asked struct {
	// What the packet says.
	end      int    // of the question section, in bytes from the packet's beginning
	size     int    // of the largest reply that the client takes, in bytes
	qtype    uint16 // Invariant: packedTypes[kind] == qtype
	kind     uint8  // its place in packedTypes
	edns, do bool   // whether there is an OPT, and its DO bit

	// Where the answer may be.
	scope *fastScope
	hash  uint64 // of key
	ref   uint64 // what may be the answer's entry, see fastPath.prefetch; 0: none

	keyLen uint16       // of key, in bytes
	buf    [maxKey]byte // key, and the rest of the last word that was copied
}

// maxKey has room for a wire name, a type, and the rest of a word.
const maxKey = 255 + 2 + 7

// key is the lower-case wire name ‖ the type.
func (q *asked) key() []byte { return q.buf[:q.keyLen] }

// name is the lower-case wire name.
func (q *asked) name() []byte { return q.buf[:q.keyLen-2] }

var keySeed = maphash.MakeSeed()

func hashKey(key []byte) uint64 { return maphash.Bytes(keySeed, key) }

// parse reads the query in buf[:n]. It accepts less than the ordinary path,
// never more.
func (q *asked) parse(buf []byte, n, maxUDP int) bool {
	const qr, opcode, tc = 0x80, 0x78, 0x02
	if n < 17 || len(buf) < 12+maxKey || n > len(buf) || buf[2]&(qr|opcode|tc) != 0 ||
		binary.BigEndian.Uint32(buf[4:]) != 1<<16 || binary.BigEndian.Uint16(buf[8:]) != 0 {
		return false
	}
	end := nameEnd(buf[:n])
	if end == 0 || end+4 > n || binary.BigEndian.Uint16(buf[end+2:]) != dns.ClassINET {
		return false
	}
	q.end, q.qtype, q.size, q.edns, q.do = end+4, binary.BigEndian.Uint16(buf[end:]), dns.MinMsgSize, false, false
	kind := slices.Index(packedTypes, q.qtype)
	if kind < 0 {
		return false
	}
	q.kind = uint8(kind)
	for i := 12; i < end; i += 8 {
		binary.LittleEndian.PutUint64(q.buf[i-12:], foldWord(binary.LittleEndian.Uint64(buf[i:])))
	}
	binary.BigEndian.PutUint16(q.buf[end-12:], q.qtype)
	q.keyLen = uint16(end - 12 + 2)
	switch binary.BigEndian.Uint16(buf[10:]) {
	case 0:
		return q.end == n
	case 1:
		return q.parseOPT(buf[q.end:n], maxUDP)
	}
	return false
}

// nameEnd returns the end of the name of the question, or 0 if it is the root,
// compressed or broken.
func nameEnd(m []byte) int {
	for off := 12; off < len(m) && off < 12+255; {
		l := int(m[off])
		if l == 0 {
			if off == 12 {
				return 0
			}
			return off + 1
		}
		if l > 63 {
			return 0
		}
		off += 1 + l
	}
	return 0
}

// foldWord lower-cases the ASCII letters among eight bytes of a wire name. The
// lengths of labels are at most 63 and thus no letters.
func foldWord(w uint64) uint64 {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	low := w &^ high
	fromA := low + (0x80-'A')*ones
	afterZ := low + (0x7f-'Z')*ones
	return w | (fromA^afterZ)&^w&high>>2
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
	q.size = clampEDNSSize(int(binary.BigEndian.Uint16(o[3:])), maxUDP)
	return true
}

// nameText has room for the presentation form of one name.
type nameText [256]byte

// of returns the presentation form of the asked name, lower case and without its
// final dot. It is good until the next call: what keeps it must clone it. ok is
// false unless all characters are letters, digits, '-' and '_'.
func (t *nameText) of(q *asked) (name string, ok bool) {
	wire := q.name()
	for off := 0; wire[off] != 0; {
		l := int(wire[off])
		if off > 0 {
			t[off-1] = '.'
		}
		for i := off + 1; i <= off+l; i++ {
			c := wire[i]
			if !plainByte[c] {
				return "", false
			}
			t[i-1] = c
		}
		off += 1 + l
	}
	return unsafe.String(&t[0], len(wire)-2), true // without the first length and the root
}

var plainByte = func() (p [256]bool) {
	for c := range p {
		p[c] = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
	}
	return p
}()
