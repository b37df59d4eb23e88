package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"meshd/state"
)

// The wire format (S15). A packet is
//
//	version byte ‖ sender ‖ boot (8 bytes) ‖ frame…
//	frame: type byte ‖ length (uvarint) ‖ payload
//
// Strings are a length and bytes. Within a frame, strings that repeat are
// written through a table that both sides grow alike: a reference r is a
// uvarint; 0 announces a new string, which becomes the table's next entry,
// r > 0 is entry r−1. Unknown frame types are skipped by their length (S11).

const wireVersion = 1

// Frame types. Never reuse a number.
const (
	framePush    byte = 1  // deltas on their first way through the mesh (G3)
	frameDelta   byte = 2  // deltas that were asked for
	frameProbe   byte = 3  // table hashes (G4)
	frameSummary byte = 4  // bucket hashes
	frameHeads   byte = 5  // all heads of some buckets
	frameHot     byte = 6  // some heads: "I have"
	frameWants   byte = 7  // what a replica has, to be answered with deltas
	framePing    byte = 8  // are you there (S9, G11)
	frameAck     byte = 9  // I am
	frameAsk     byte = 10 // please ping a third node for me
	frameHeard   byte = 11 // the third node answered
	frameEqual   byte = 12 // the probe's hashes are ours too
	frameCall    byte = 13 // a request of the host above the core
	frameReply   byte = 14 // its answer
	frameMore    byte = 15 // heads of what was asked for and did not fit the answer
)

// errWire is wrapped by every decoding error; the packet or frame is dropped
// and counted (G8).
var errWire = errors.New("malformed packet")

type encoder struct {
	b     []byte
	table map[string]uint64
	frame int // start of the open frame's payload
}

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

// str reads a string of at most limit bytes; it allocates only after the check (G8).
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

// packetHead is the part of a packet before its frames.
type packetHead struct {
	from state.NodeID
	boot uint64
}

// decodeHead reads the head of a packet and returns the rest.
func decodeHead(p []byte) (packetHead, []byte, error) {
	d := decoder{b: p}
	if v := d.byte(); d.err == nil && v != wireVersion {
		return packetHead{}, nil, fmt.Errorf("%w: version %d, want %d", errWire, v, wireVersion)
	}
	h := packetHead{from: state.NodeID(d.str(state.MaxName))}
	if len(d.b) < 8 {
		d.fail("boot id")
		return h, nil, d.err
	}
	h.boot = binary.BigEndian.Uint64(d.b)
	if h.from == "" {
		d.fail("sender")
	}
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

// maxRecords bounds what one delta may announce before its bytes are seen.
const maxRecords = 1 << 20

func (d *decoder) delta() *state.Delta {
	x := &state.Delta{Network: d.ref(), Owner: state.NodeID(d.ref())}
	flags := d.byte()
	x.Snapshot = flags&flagSnapshot != 0
	x.Inc, x.From = d.uint(), d.uint()
	x.To = x.From + d.uint()
	x.Floor = x.To - d.uint()
	x.Sum = d.fixed()
	x.After, x.Upto = x.From, x.To
	if flags&flagChunk != 0 {
		x.After = x.From + d.uint()
		x.Upto = x.After + d.uint()
	}
	n := d.uint()
	if n > maxRecords || n*3 > uint64(len(d.b)) { // a record takes three bytes or more
		d.fail("record count")
		return x
	}
	if x.Floor > x.To || x.To < x.From {
		d.fail("delta bounds")
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
	r.Version = prev + d.uint()
	r.Key = d.str(state.MaxName)
	if !r.Deleted {
		r.Group = d.ref()
		r.Body = d.str(state.MaxBody)
	}
	return r
}

func (e *encoder) head(h state.OwnerHead) {
	e.ref(string(h.Owner))
	e.byte(boolByte(h.Buried) | boolByte(h.Kept)<<1)
	e.uint(h.Head.Inc)
	e.uint(h.Head.Version)
	e.uint(h.Head.Version - h.Head.Floor)
	e.fixed(h.Head.Sum)
}

func (d *decoder) head() state.OwnerHead {
	h := state.OwnerHead{Owner: state.NodeID(d.ref())}
	flags := d.byte()
	h.Buried, h.Kept = flags&1 != 0, flags&2 != 0
	h.Head.Inc, h.Head.Version = d.uint(), d.uint()
	h.Head.Floor = h.Head.Version - d.uint()
	h.Head.Sum = d.fixed()
	if h.Head.Floor > h.Head.Version || h.Owner == "" {
		d.fail("head")
	}
	return h
}

// heads writes a frame of heads of one network. buckets says for which of n
// buckets it is complete; nil: it is not (a hot list).
func (e *encoder) heads(typ byte, network string, n int, buckets []int, reply bool, hs []state.OwnerHead) {
	e.open(typ)
	e.str(network)
	if typ == frameHeads {
		e.uint(uint64(n))
		e.byte(boolByte(reply))
		e.uint(uint64(len(buckets)))
		for _, b := range buckets {
			e.uint(uint64(b))
		}
	}
	e.uint(uint64(len(hs)))
	for _, h := range hs {
		e.head(h)
	}
	e.close()
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

type headsFrame struct {
	network string
	n       int
	reply   bool
	buckets []int
	heads   []state.OwnerHead
}

const maxBuckets = 256

func decodeHeads(typ byte, p []byte) (headsFrame, error) {
	d := decoder{b: p}
	f := headsFrame{network: d.str(state.MaxLabel)}
	if typ == frameHeads {
		f.n = int(min(d.uint(), maxBuckets+1))
		f.reply = d.byte()&1 != 0
		k := d.uint()
		if f.n == 0 || f.n > maxBuckets || f.n&(f.n-1) != 0 || k > uint64(f.n) {
			d.fail("buckets")
		}
		for range min(k, maxBuckets) {
			b := int(min(d.uint(), maxBuckets))
			if b >= f.n {
				d.fail("bucket")
			}
			f.buckets = append(f.buckets, b)
		}
	}
	f.heads = d.headList()
	return f, d.err
}

func (d *decoder) headList() []state.OwnerHead {
	n := d.uint()
	if n*13 > uint64(len(d.b)) { // a head takes 13 bytes or more
		d.fail("head count")
		return nil
	}
	hs := make([]state.OwnerHead, 0, n)
	for range n {
		h := d.head()
		if d.err != nil {
			return nil
		}
		hs = append(hs, h)
	}
	return hs
}

type summaryFrame struct {
	network string
	hashes  []uint64
	hot     []state.OwnerHead
}

func (e *encoder) summary(f summaryFrame) {
	e.open(frameSummary)
	e.str(f.network)
	e.uint(uint64(len(f.hashes)))
	for _, h := range f.hashes {
		e.fixed(h)
	}
	e.uint(uint64(len(f.hot)))
	for _, h := range f.hot {
		e.head(h)
	}
	e.close()
}

func decodeSummary(p []byte) (summaryFrame, error) {
	d := decoder{b: p}
	f := summaryFrame{network: d.str(state.MaxLabel)}
	n := d.uint()
	if n == 0 || n > maxBuckets || n&(n-1) != 0 {
		d.fail("buckets")
		return f, d.err
	}
	for range n {
		f.hashes = append(f.hashes, d.fixed())
	}
	f.hot = d.headList()
	return f, d.err
}

type probeFrame struct {
	ack    bool // answer even if equal
	tables []tableHash
}

type tableHash struct {
	network uint32 // a hash of the name
	hash    uint64
}

const maxProbed = 16

func (e *encoder) probe(typ byte, f probeFrame) {
	e.open(typ)
	e.byte(boolByte(f.ack))
	for _, t := range f.tables {
		e.b = binary.LittleEndian.AppendUint32(e.b, t.network)
		e.fixed(t.hash)
	}
	e.close()
}

func decodeProbe(p []byte) (probeFrame, error) {
	d := decoder{b: p}
	f := probeFrame{ack: d.byte()&1 != 0}
	if len(d.b)%12 != 0 || len(d.b) > maxProbed*12 {
		d.fail("probe")
	}
	for len(d.b) > 0 {
		n := binary.LittleEndian.Uint32(d.b)
		d.b = d.b[4:]
		f.tables = append(f.tables, tableHash{network: n, hash: d.fixed()})
	}
	return f, d.err
}

func (e *encoder) wants(network string, ws []state.Want) {
	e.open(frameWants)
	e.str(network)
	e.uint(uint64(len(ws)))
	for _, w := range ws {
		e.ref(string(w.Owner))
		e.byte(boolByte(w.Snapshot))
		e.uint(w.Inc)
		e.uint(w.From)
		e.uint(w.After - w.From)
	}
	e.close()
}

func decodeWants(p []byte) (network string, ws []state.Want, err error) {
	d := decoder{b: p}
	network = d.str(state.MaxLabel)
	n := d.uint()
	if n*5 > uint64(len(d.b)) {
		d.fail("want count")
		return network, nil, d.err
	}
	for range n {
		w := state.Want{Owner: state.NodeID(d.ref())}
		w.Snapshot = d.byte()&1 != 0
		w.Inc, w.From = d.uint(), d.uint()
		w.After = w.From + d.uint()
		if w.After < w.From {
			d.fail("want")
		}
		if d.err != nil {
			return network, nil, d.err
		}
		ws = append(ws, w)
	}
	return network, ws, d.err
}

// pingFrame serves ping, ack, ask and heard.
type pingFrame struct {
	nonce  uint64
	target state.NodeID
	addr   netip.AddrPort // of the target, in an ask
}

func (e *encoder) ping(typ byte, f pingFrame) {
	e.open(typ)
	e.uint(f.nonce)
	e.str(string(f.target))
	e.str(f.addr.String())
	e.close()
}

func decodePing(p []byte) (pingFrame, error) {
	d := decoder{b: p}
	f := pingFrame{nonce: d.uint(), target: state.NodeID(d.str(state.MaxName))}
	f.addr, _ = netip.ParseAddrPort(d.str(64))
	return f, d.err
}

// callFrame carries a request or an answer of the layer above.
type callFrame struct {
	id   uint64
	op   string
	body []byte
}

func (e *encoder) call(typ byte, f callFrame) {
	e.open(typ)
	e.uint(f.id)
	e.str(f.op)
	e.b = append(e.b, f.body...)
	e.close()
}

func decodeCall(p []byte) (callFrame, error) {
	d := decoder{b: p}
	f := callFrame{id: d.uint(), op: d.str(state.MaxLabel)}
	f.body = d.b
	return f, d.err
}
