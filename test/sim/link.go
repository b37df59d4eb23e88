package sim

import (
	"math"
	"time"
)

// Link is how packets fare from one node to another. The zero value of a
// field means none of it.
type Link struct {
	Base    time.Duration // latency, one way
	Jitter  time.Duration // mean of an exponential addition
	Loss    float64       // share of packets, and of segments of a stream
	Dup     float64       // share of datagrams that arrive twice
	Reorder float64       // share of datagrams that are held back
	Hold    time.Duration // for up to that long
}

// LAN is the link of the published figures: 0.3 ms + Exp(0.15 ms).
func LAN() Link { return Link{Base: 300 * time.Microsecond, Jitter: 150 * time.Microsecond} }

// Cut says what a directed link does not carry.
type Cut uint8

// What a cut link drops.
const (
	CutDatagrams Cut = 1 << iota
	CutStreams
	CutAll = CutDatagrams | CutStreams
)

// overhead is what IP, UDP and memberlist's framing add to a datagram, and
// segment what a stream carries per packet.
const (
	overhead = 34
	segment  = 1400
	rtoFirst = time.Second            // of a connection request (RFC 6298)
	rtoData  = 200 * time.Millisecond // of a segment at the end of a burst
)

type pair struct{ from, to int32 }

func (w *World) link(from, to int32) (*Link, Cut) {
	if len(w.links) == 0 && len(w.cuts) == 0 {
		return &w.opt.Link, 0
	}
	l, ok := w.links[pair{from, to}]
	if !ok {
		l = &w.opt.Link
	}
	return l, w.cuts[pair{from, to}]
}

func (w *World) latency(l *Link) time.Duration {
	d := l.Base
	if l.Jitter > 0 {
		d += time.Duration(w.rng.ExpFloat64() * float64(l.Jitter))
	}
	return d
}

func (w *World) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// serialize returns when n bytes have left a node's network card.
func (w *World) serialize(n *Node, size int) time.Duration {
	n.wire = max(n.wire, w.now) + time.Duration(float64(size+overhead)*w.perByte)
	return n.wire
}

// datagram puts a datagram on the wire.
func (w *World) datagram(from *Node, to int32, data []byte) {
	l, cut := w.link(from.index, to)
	out := w.serialize(from, len(data))
	if cut&CutDatagrams != 0 || w.chance(l.Loss) {
		return
	}
	at := out + w.latency(l)
	if w.chance(l.Reorder) {
		at += time.Duration(w.rng.Float64() * float64(l.Hold))
	}
	w.schedule(event{at: at, kind: evPacket, node: to, from: from.index, data: data})
	if w.chance(l.Dup) {
		w.schedule(event{at: at + w.latency(l), kind: evPacket, node: to, from: from.index, data: data})
	}
}

// stream sends data over a new connection: a round trip to set it up, slow
// start, and a time-out for every lost segment that nothing follows.
func (w *World) stream(from *Node, to int32, data []byte) {
	l, cut := w.link(from.index, to)
	back, cutBack := w.link(to, from.index)
	peer := w.nodes[to]
	if (cut|cutBack)&CutStreams != 0 || !peer.up {
		return
	}
	at := w.now
	for rto := rtoFirst; w.chance(1 - (1-l.Loss)*(1-back.Loss)); rto *= 2 {
		if at += rto; at > w.now+10*time.Second {
			return // the dial times out
		}
	}
	rtt := w.latency(l) + w.latency(back)
	segments := (len(data) + segment - 1) / segment
	rounds := int(math.Log2(float64(segments)/10 + 1))
	at = max(at+rtt*time.Duration(1+rounds), w.serialize(from, len(data)+segments*66)) + w.latency(l)
	for i, lost := 0, 0; i < segments; i++ {
		for w.chance(l.Loss) {
			if lost++; segments-i > 3 {
				at += rtt // fast retransmission
			} else {
				at += rtoData << min(lost-1, 5)
			}
		}
		lost = 0
	}
	w.schedule(event{at: at, kind: evStream, node: to, from: from.index, life: peer.life, sent: from.life, data: data})
}
