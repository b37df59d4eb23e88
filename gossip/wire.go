package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"

	"meshd/state"
)

// This file owns the wire format of packets, frames and deltas (S15); frames.go has the
// other frames. Nothing here has state, and nothing but the core uses it.
//
// A packet is
//
//	version byte ‖ sender ‖ boot (8 bytes) ‖ frame…
//	frame: type byte ‖ length (uvarint) ‖ payload
//
// Strings are a length and bytes. Within a frame, strings that repeat are written through
// a table that both sides grow alike: a reference r is a uvarint; 0 announces a new
// string, which becomes the table's next entry, and r > 0 is entry r−1. Frames of unknown
// types are skipped by their length (S11).

// wireVersion is the version byte of every packet.
const wireVersion = 1

// Frame types. A number is never used again.
const (
	framePush    byte = 1  // deltas on their first way through the mesh (G3)
	frameDelta   byte = 2  // deltas that were asked for
	frameProbe32 byte = 3  // frameProbe of versions that had 32 bits of a network's hash: answered, not sent
	frameSummary byte = 4  // bucket hashes
	frameHeads   byte = 5  // all heads of some buckets
	frameHot     byte = 6  // some heads: "I have"
	frameWants   byte = 7  // what a replica has, to be answered with deltas
	framePing    byte = 8  // are you there (S9, G11)
	frameAck     byte = 9  // I am
	frameAsk     byte = 10 // please ping a third node for me
	frameHeard   byte = 11 // the third node answered
	frameEqual32 byte = 12 // frameEqual, likewise
	frameCall    byte = 13 // a request of the host above the core
	frameReply   byte = 14 // its answer
	frameMore    byte = 15 // heads of what was asked for and did not fit the answer
	frameProbe   byte = 16 // table hashes (G4)
	frameEqual   byte = 17 // the probe's hashes are ours too
)

// frameKinds bounds the frame types that are counted one by one.
const frameKinds = 32

// errWire is wrapped by every decoding error. The packet or frame is dropped and
// counted (G8).
var errWire = errors.New("malformed packet")

// encoder writes a packet.
type encoder struct {
	b     []byte
	table map[string]uint64
	frame int // start of the open frame's payload
}

// newEncoder starts a packet of self.
func newEncoder(self state.NodeID, boot uint64) *encoder {
	e := &encoder{b: []byte{wireVersion}}
	e.str(string(self))
	e.b = binary.BigEndian.AppendUint64(e.b, boot)
	return e
}

func (e *encoder) uint(v uint64)  { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) fixed(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) byte(v byte)    { e.b = append(e.b, v) }
func (e *encoder) str(s string)   { e.uint(uint64(len(s))); e.b = append(e.b, s...) }

// ref writes a string through the frame's table.
func (e *encoder) ref(s string) {
	if r, ok := e.table[s]; ok {
		e.uint(r)
		return
	}
	e.uint(0)
	e.str(s)
	e.table[s] = uint64(len(e.table) + 1)
}

// open starts a frame; close fills in its length.
func (e *encoder) open(typ byte) {
	e.table = map[string]uint64{}
	e.byte(typ)
	e.frame = len(e.b)
}

func (e *encoder) close() {
	n := len(e.b) - e.frame
	var l [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(l[:], uint64(n))
	e.b = append(e.b, l[:w]...)
	copy(e.b[e.frame+w:], e.b[e.frame:e.frame+n])
	copy(e.b[e.frame:], l[:w])
}

// decoder reads a packet or a frame. After the first error it reads zeros.
type decoder struct {
	b     []byte
	table []string
	err   error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", errWire, what)
	}
	d.b = nil
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) fixed() uint64 {
	if len(d.b) < 8 {
		d.fail("hash")
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) < 1 {
		d.fail("byte")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

// count reads how many items follow, each of least bytes or more. It refuses a
// number that the rest of the frame cannot hold, and divides to find out: a
// product with a received number wraps around (G8, G12).
func (d *decoder) count(least int) int {
	n := d.uint()
	if n > uint64(len(d.b)/least) {
		d.fail("count")
		return 0
	}
	return int(n)
}

// above reads a number that is given as its distance up from base.
func (d *decoder) above(base uint64) uint64 {
	v := base + d.uint()
	if v < base {
		d.fail("number out of range")
	}
	return v
}

// below reads a number that is given as its distance down from top.
func (d *decoder) below(top uint64) uint64 {
	n := d.uint()
	if n > top {
		d.fail("number out of range")
		return 0
	}
	return top - n
}

// str reads a string of at most limit bytes. It allocates only after the check
// (G8).
func (d *decoder) str(limit int) string {
	n := d.uint()
	if n > uint64(limit) || n > uint64(len(d.b)) {
		d.fail("string")
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// ref reads a string through the frame's table.
func (d *decoder) ref() string {
	r := d.uint()
	if r == 0 {
		s := d.str(state.MaxName)
		if d.err == nil {
			d.table = append(d.table, s)
		}
		return s
	}
	if r > uint64(len(d.table)) {
		d.fail("string reference")
		return ""
	}
	return d.table[r-1]
}

// node checks the name of a node. Every name is checked where it is read (G8): one that
// no node and no network can have must not become the key of a map.
func (d *decoder) node(s string) state.NodeID {
	if d.err == nil && state.CheckName(s) != nil {
		d.fail("node name")
		return ""
	}
	return state.NodeID(s)
}

// network checks the name of a network; the empty one is the global scope.
func (d *decoder) network(s string) string {
	if d.err == nil && s != "" && state.CheckName(s) != nil {
		d.fail("network name")
		return ""
	}
	return s
}

// packetHead is the part of a packet before its frames.
type packetHead struct {
	from state.NodeID
	boot uint64
}

// decodeHead reads the head of a packet, and returns the rest.
func decodeHead(p []byte) (packetHead, []byte, error) {
	d := decoder{b: p}
	if v := d.byte(); d.err == nil && v != wireVersion {
		return packetHead{}, nil, fmt.Errorf("%w: version %d, want %d", errWire, v, wireVersion)
	}
	h := packetHead{from: d.node(d.str(state.MaxName))}
	if len(d.b) < 8 {
		d.fail("boot id")
		return h, nil, d.err
	}
	h.boot = binary.BigEndian.Uint64(d.b)
	if d.err != nil {
		return h, nil, d.err
	}
	return h, d.b[8:], nil
}

// nextFrame cuts the first frame off p.
func nextFrame(p []byte) (typ byte, payload, rest []byte, err error) {
	d := decoder{b: p}
	typ = d.byte()
	n := d.uint()
	if d.err == nil && n > uint64(len(d.b)) {
		d.fail("frame length")
	}
	if d.err != nil {
		return 0, nil, nil, d.err
	}
	return typ, d.b[:n], d.b[n:], nil
}

// Flags of an encoded delta.
const (
	flagSnapshot byte = 1 << iota
	flagChunk
)

const deletedBit = 0x80 // of a record's kind byte

func (e *encoder) delta(x *state.Delta) {
	var flags byte
	if x.Snapshot {
		flags |= flagSnapshot
	}
	if !x.Whole() {
		flags |= flagChunk
	}
	e.ref(x.Network)
	e.ref(string(x.Owner))
	e.byte(flags)
	e.uint(x.Inc)
	e.uint(x.From)
	e.uint(x.To - x.From)
	e.uint(x.To - x.Floor)
	e.fixed(x.Sum)
	if flags&flagChunk != 0 {
		e.uint(x.After - x.From)
		e.uint(x.Upto - x.After)
	}
	e.uint(uint64(len(x.Records)))
	prev := x.After
	for i := range x.Records {
		e.record(&x.Records[i], prev)
		prev = x.Records[i].Version
	}
}

func (e *encoder) record(r *state.Record, prev uint64) {
	kind := byte(r.Kind) &^ deletedBit
	if r.Deleted {
		kind |= deletedBit
	}
	e.byte(kind)
	e.uint(r.Version - prev)
	e.str(r.Key)
	if r.Deleted {
		return
	}
	e.ref(r.Group)
	e.str(r.Body)
}

// The least bytes of what a frame lists, and how many records one delta may hold:
// a peer sends at most a Chunk, and a record takes 17 bytes or more of it.
const (
	leastRecord = 3  // kind, version, key
	leastHead   = 13 // owner, flags, incarnation, version, floor, sum
	leastWant   = 5  // owner, flags, incarnation, from, after
	maxRecords  = 1 << 16
)

func (d *decoder) delta() *state.Delta {
	x := &state.Delta{Network: d.network(d.ref()), Owner: d.node(d.ref())}
	flags := d.byte()
	x.Snapshot = flags&flagSnapshot != 0
	x.Inc, x.From = d.uint(), d.uint()
	x.To = d.above(x.From)
	x.Floor = d.below(x.To)
	x.Sum = d.fixed()
	x.After, x.Upto = x.From, x.To
	if flags&flagChunk != 0 {
		x.After = d.above(x.From)
		x.Upto = d.above(x.After)
	}
	n := d.count(leastRecord)
	if n > maxRecords || x.Upto > x.To {
		d.fail("delta bounds")
	}
	if d.err != nil {
		return x
	}
	x.Records = make([]state.Record, 0, n)
	prev := x.After
	for range n {
		r := d.record(prev)
		if d.err != nil {
			return x
		}
		prev = r.Version
		x.Records = append(x.Records, r)
	}
	return x
}

func (d *decoder) record(prev uint64) state.Record {
	kind := d.byte()
	r := state.Record{Kind: state.Kind(kind &^ deletedBit), Deleted: kind&deletedBit != 0}
	r.Version = d.above(prev)
	r.Key = d.str(state.MaxName)
	if !r.Deleted {
		r.Group = d.ref()
		r.Body = d.str(state.MaxBody)
	}
	return r
}
