package gossip

import (
	"encoding/binary"
	"net/netip"
	"time"

	"meshd/state"
)

// This file owns the form of the frames: heads, summaries, probes, wants, pings and calls.

func (e *encoder) head(h state.OwnerHead) {
	e.ref(string(h.Owner))
	e.byte(boolByte(h.Retired) | boolByte(h.Kept)<<1)
	e.uint(h.Head.Inc)
	e.uint(h.Head.Version)
	e.uint(h.Head.Version - h.Head.Floor)
	e.fixed(h.Head.Sum)
}

func (d *decoder) head() state.OwnerHead {
	h := state.OwnerHead{Owner: d.node(d.ref())}
	flags := d.byte()
	h.Retired, h.Kept = flags&1 != 0, flags&2 != 0
	h.Head.Inc, h.Head.Version = d.uint(), d.uint()
	h.Head.Floor = d.below(h.Head.Version)
	h.Head.Sum = d.fixed()
	return h
}

// heads writes a frame of heads of one network. buckets says for which of n
// buckets it is complete; nil: for none, as in a list of recent news.
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

// headsFrame is a list of heads.
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
	f := headsFrame{network: d.network(d.str(state.MaxLabel))}
	if typ == frameHeads {
		f.n = int(min(d.uint(), maxBuckets+1))
		f.reply = d.byte()&1 != 0
		k := d.count(1)
		if f.n == 0 || f.n > maxBuckets || f.n&(f.n-1) != 0 || k > f.n {
			d.fail("buckets")
		}
		for range k {
			b := d.uint()
			if b >= uint64(f.n) {
				d.fail("bucket")
			}
			if d.err != nil {
				return f, d.err
			}
			f.buckets = append(f.buckets, int(b))
		}
	}
	f.heads = d.headList()
	return f, d.err
}

func (d *decoder) headList() []state.OwnerHead {
	n := d.count(leastHead)
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

// summaryFrame is the hashes of a table's buckets, and the recent news.
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
	f := summaryFrame{network: d.network(d.str(state.MaxLabel))}
	n := d.count(8)
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

// probeFrame is the hashes of some tables.
type probeFrame struct {
	ack    bool // answer even if equal
	stream bool // answer over a stream
	tables []tableHash
}

// tableHash is the hash of one table.
type tableHash struct {
	network uint64 // a hash of the name
	hash    uint64
}

// maxProbed bounds how many networks a packet compares, probedSize is what one
// takes.
const (
	maxProbed  = 128
	probedSize = 16
)

// globalHash stands for the global scope in probes.
var globalHash = networkHash("")

// hashWidth is how many bytes of a network's hash a frame of that type has.
func hashWidth(typ byte) int {
	if typ == frameProbe32 || typ == frameEqual32 {
		return 4
	}
	return 8
}

// probe writes the hashes of tables. If the first one is the global scope's, a
// flag says so in place of eight bytes: nearly every probe of a node at rest has
// it.
func (e *encoder) probe(typ byte, f probeFrame) {
	e.open(typ)
	ts := f.tables
	global := hashWidth(typ) == 8 && len(ts) > 0 && ts[0].network == globalHash
	e.byte(boolByte(f.ack) | boolByte(f.stream)<<1 | boolByte(global)<<2)
	if global {
		e.fixed(ts[0].hash)
		ts = ts[1:]
	}
	for _, t := range ts {
		if hashWidth(typ) == 4 {
			e.b = binary.LittleEndian.AppendUint32(e.b, uint32(t.network))
		} else {
			e.fixed(t.network)
		}
		e.fixed(t.hash)
	}
	e.close()
}

func decodeProbe(typ byte, p []byte) (probeFrame, error) {
	d := decoder{b: p}
	flags := d.byte()
	f := probeFrame{ack: flags&1 != 0, stream: flags&2 != 0}
	if hashWidth(typ) == 8 && flags&4 != 0 {
		f.tables = append(f.tables, tableHash{globalHash, d.fixed()})
	}
	size := hashWidth(typ) + 8
	if len(d.b)%size != 0 || len(d.b) > maxProbed*size {
		d.fail("probe")
	}
	for len(d.b) > 0 {
		var t tableHash
		if hashWidth(typ) == 4 {
			t.network = uint64(binary.LittleEndian.Uint32(d.b))
			d.b = d.b[4:]
		} else {
			t.network = d.fixed()
		}
		t.hash = d.fixed()
		f.tables = append(f.tables, t)
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
	network = d.network(d.str(state.MaxLabel))
	n := d.count(leastWant)
	for range n {
		w := state.Want{Owner: d.node(d.ref())}
		w.Snapshot = d.byte()&1 != 0
		w.Inc, w.From = d.uint(), d.uint()
		w.After = d.above(w.From)
		if d.err != nil {
			return network, nil, d.err
		}
		ws = append(ws, w)
	}
	return network, ws, d.err
}

// pingFrame is the content of ping, ack, ask and heard.
type pingFrame struct {
	nonce  uint64
	target state.NodeID
	addr   netip.AddrPort // in an ask, of the target; in a challenge and its answer, of the sender (S7)
	// In the answer to a challenge: how long the sender has been running, and
	// whether it has yielded its name.
	up      time.Duration
	yielded bool
	goodbye goodbye // whether the sender asks for the target's goodbye, or answers for its own
}

// goodbye is what a ping and its answer say about a goodbye, the last and empty
// snapshot of a node.
type goodbye byte

const (
	goodbyeUnasked goodbye = iota // also the answer of versions that do not know the question
	goodbyeAsked
	goodbyeDenied    // the target is there, and stays
	goodbyeConfirmed // it leaves
)

func (e *encoder) ping(typ byte, f pingFrame) {
	e.open(typ)
	e.uint(f.nonce)
	e.str(string(f.target))
	if f.addr.IsValid() {
		e.str(f.addr.String())
	} else {
		e.str("")
	}
	if f.up > 0 || f.yielded || f.goodbye != goodbyeUnasked {
		e.uint(uint64(f.up / time.Millisecond))
		e.byte(boolByte(f.yielded) | byte(f.goodbye)<<1)
	}
	e.close()
}

// maxUp bounds how long a node may claim to have been running.
const maxUp = 100 * 365 * 24 * time.Hour

func decodePing(p []byte) (pingFrame, error) {
	d := decoder{b: p}
	f := pingFrame{nonce: d.uint()}
	if target := d.str(state.MaxName); target != "" {
		f.target = d.node(target)
	}
	f.addr, _ = netip.ParseAddrPort(d.str(64))
	if len(d.b) > 0 {
		f.up = time.Duration(min(d.uint(), uint64(maxUp/time.Millisecond))) * time.Millisecond
		flags := d.byte()
		f.yielded, f.goodbye = flags&1 != 0, goodbye(flags>>1&3)
	}
	return f, d.err
}

// callFrame is a request or an answer of the layer above.
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
