package transport

import (
	"encoding/binary"
	"math"
)

// This file walks through memberlist's messages, and owns what they may look like.
// memberlist decodes them with a library that allocates what a length announces, up to
// 4 GiB for a datagram of 20 bytes, and it decompresses, 40 MiB out of 31 KB, although
// meshd never compresses. So every message is looked at before memberlist sees it; with
// encryption, in a copy that is decrypted here. Nothing here has state.

// memberlist's message types, as far as they matter here.
const (
	msgPing       = 0
	msgAlive      = 4
	msgDead       = 5
	msgPushPull   = 6
	msgCompound   = 7
	msgUser       = 8
	msgCompressed = 9
	msgNack       = 11
	msgCRC        = 12
	msgError      = 13
)

// MaxMessage is how many bytes the longest message of the protocol above has.
const MaxMessage = 1 << 20

// Bounds of what a message holds (G14).
const (
	maxDepth     = 8
	maxItems     = 1 << 10 // of a list or a map
	maxValue     = 64 << 10
	maxPushNodes = 1 << 14 // in an exchange of memberlist's state
)

// sanePlain reports whether memberlist may handle a datagram's content.
func sanePlain(b []byte) bool {
	if len(b) >= 5 && b[0] == msgCRC {
		b = b[5:]
	}
	return saneMessage(b, true)
}

// saneMessage walks through one message. The messages inside a compound must not
// be compounds.
func saneMessage(b []byte, compound bool) bool {
	if len(b) == 0 {
		return false
	}
	switch typ := b[0]; {
	case typ == msgUser:
		return true
	case typ == msgCompound:
		return compound && saneCompound(b[1:])
	case typ <= msgDead, typ == msgNack:
		_, st := skip(b[1:], maxDepth)
		return st == whole
	}
	return false
}

func saneCompound(b []byte) bool {
	if len(b) == 0 || len(b) < 1+2*int(b[0]) {
		return false
	}
	lengths, b := b[1:1+2*int(b[0])], b[1+2*int(b[0]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(binary.BigEndian.Uint16(lengths))
		if n > len(b) {
			return true // memberlist drops the rest and logs it
		}
		if !saneMessage(b[:n], false) {
			return false
		}
		b = b[n:]
	}
	return true
}

// content is what arrives over a stream, as far as it was read.
type content struct {
	b    []byte
	off  int         // of what was not yet walked through
	more func() bool // reads more into b; false: there is no more
}

// sane reports whether memberlist may read a stream with that content.
func (c *content) sane() bool {
	if !c.has(1) {
		return true // the stream is empty
	}
	typ := c.b[c.off]
	c.off++
	switch typ {
	case msgCompressed:
		return false
	case msgUser:
		h, ok := c.header("UserMsgLen")
		return ok && h["UserMsgLen"] <= MaxMessage && c.hasRoomFor(h["UserMsgLen"], 1)
	case msgPushPull:
		return c.sanePushPull()
	case msgError:
		return c.value()
	}
	return typ > msgDead || c.value() // memberlist refuses what is no message itself
}

func (c *content) sanePushPull() bool {
	h, ok := c.header("Nodes", "UserStateLen", "Join")
	if !ok || h["Nodes"] > maxPushNodes || h["UserStateLen"] > maxValue || !c.hasRoomFor(h["Nodes"], leastNode) {
		return false
	}
	for range h["Nodes"] {
		if !c.value() {
			return false
		}
	}
	return c.hasRoomFor(h["UserStateLen"], 1)
}

// leastNode is less than what memberlist writes for one node: the names of its fields
// alone take more.
const leastNode = 40

// hasRoomFor reports whether n items of that size can still follow. Where more may be
// read, that is not known, and it reports true.
func (c *content) hasRoomFor(n uint64, least int) bool {
	return c.more != nil || n <= uint64((len(c.b)-c.off)/least)
}

func (c *content) has(n int) bool {
	for len(c.b)-c.off < n {
		if c.more == nil || !c.more() {
			return false
		}
	}
	return true
}

// value walks through one value.
func (c *content) value() bool {
	for {
		n, st := skip(c.b[c.off:], maxDepth)
		switch {
		case st == whole:
			c.off += n
			return true
		case st == broken, len(c.b)-c.off > maxValue, c.more == nil, !c.more():
			return false
		}
	}
}

// header walks through a map of small numbers with only these names.
func (c *content) header(names ...string) (map[string]uint64, bool) {
	start := c.off
	if !c.value() {
		return nil, false
	}
	b := c.b[start:c.off]
	if b[0]&0xf0 != 0x80 {
		return nil, false
	}
	out := map[string]uint64{}
	items := int(b[0] & 0x0f)
	b = b[1:]
	for range items {
		n, _ := skip(b, maxDepth)
		key := b[:n]
		b = b[n:]
		n, _ = skip(b, maxDepth)
		v, ok := number(b[:n])
		b = b[n:]
		name := ""
		for _, s := range names {
			if len(key) == len(s)+1 && key[0] == 0xa0|byte(len(s)) && string(key[1:]) == s {
				name = s
			}
		}
		if !ok || name == "" {
			return nil, false
		}
		out[name] = max(out[name], v) // a name may come twice: the larger number counts
	}
	return out, true
}

// number reads an integer that is not negative, or a truth value.
func number(b []byte) (uint64, bool) {
	var v uint64
	switch t := b[0]; {
	case t < 0x80:
		return uint64(t), true
	case t == 0xc2, t == 0xc3:
		return uint64(t & 1), true
	case t >= 0xcc && t <= 0xcf, t >= 0xd0 && t <= 0xd3:
		for _, x := range b[1:] {
			v = v<<8 | uint64(x)
		}
		signed := t >= 0xd0
		return v, !signed || v < 1<<(8*(len(b)-1)-1)
	}
	return 0, false
}

// status says how skip ended.
type status uint8

const (
	whole  status = iota
	cut           // more bytes are needed to decide
	broken        // no honest value
)

// skip returns the length of the msgpack value at the start of b.
func skip(b []byte, depth int) (int, status) {
	if len(b) == 0 {
		return 0, cut
	}
	if depth < 0 {
		return 0, broken
	}
	head, size, items, st := shape(b)
	if st != whole {
		return 0, st
	}
	if size > maxValue || items > maxItems {
		return 0, broken
	}
	n := head + size
	if n > len(b) {
		return 0, cut
	}
	for range items {
		k, st := skip(b[n:], depth-1)
		if st != whole {
			return 0, st
		}
		n += k
	}
	return n, whole
}

// shape reads what a value's first bytes announce: their number, the bytes that
// follow, or the values that do.
func shape(b []byte) (head, size, items int, st status) {
	t := b[0]
	switch {
	case t < 0x80, t >= 0xe0, t == 0xc0, t == 0xc2, t == 0xc3:
		return 1, 0, 0, whole
	case t < 0x90:
		return 1, 0, 2 * int(t&0x0f), whole
	case t < 0xa0:
		return 1, 0, int(t & 0x0f), whole
	case t < 0xc0:
		return 1, int(t & 0x1f), 0, whole
	}
	switch t {
	case 0xcc, 0xd0:
		return 1, 1, 0, whole
	case 0xcd, 0xd1:
		return 1, 2, 0, whole
	case 0xce, 0xd2, 0xca:
		return 1, 4, 0, whole
	case 0xcf, 0xd3, 0xcb:
		return 1, 8, 0, whole
	case 0xc4, 0xd9:
		return announced(b, 1, func(n int) (int, int) { return n, 0 })
	case 0xc5, 0xda:
		return announced(b, 2, func(n int) (int, int) { return n, 0 })
	case 0xc6, 0xdb:
		return announced(b, 4, func(n int) (int, int) { return n, 0 })
	case 0xdc:
		return announced(b, 2, func(n int) (int, int) { return 0, n })
	case 0xdd:
		return announced(b, 4, func(n int) (int, int) { return 0, n })
	case 0xde:
		return announced(b, 2, func(n int) (int, int) { return 0, 2 * n })
	case 0xdf:
		return announced(b, 4, func(n int) (int, int) { return 0, 2 * n })
	}
	return 0, 0, 0, broken // extensions: memberlist has none
}

// announced reads a length of so many bytes.
func announced(b []byte, width int, as func(n int) (size, items int)) (head, size, items int, st status) {
	if len(b) < 1+width {
		return 0, 0, 0, cut
	}
	var n uint64
	for _, x := range b[1 : 1+width] {
		n = n<<8 | uint64(x)
	}
	size, items = as(int(min(n, math.MaxInt32)))
	return 1 + width, size, items, whole
}
