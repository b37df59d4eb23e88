package resolver

// This file owns the replies of the fast path (R6.3): it answers in the receive
// buffer, and hands what it cannot answer to the ordinary path with the buffer
// unchanged. fast_scope.go and fast_change.go own which packed answers there are
// and whether they are true, fast_pack.go how they are made.

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// fastPath answers questions in the receive buffer from answers packed before
// (R6): every name that exists but nearest.<service>, of the common types, and
// NXDOMAIN for unknown names in our zones. Whatever is unusual it leaves to the
// ordinary path, which gives the same answers: both ask zone.find what a name
// stands for, and a differential fuzz test compares them.
//
// A name is packed when it is first asked for, which costs less than the
// ordinary answer does. A packed answer is true as long as the views count no
// change (one load per batch of packets). After a change it is used again if
// its name still stands for the same, and packed anew otherwise; the names of
// services that the change is not about need not even be looked at. So names
// that are not asked for cost nothing, and an answer is never older than the view.
//
// It belongs to the goroutine that reads the socket: no lock, and no
// allocation but for packing.
type fastPath struct {
	fastScopes // the packed answers, by scope

	server *Server
	soa    soaTemplate

	one    [1]asked   // the question, where packets come one by one
	counts fastCounts // of the batch
	rand   uint64     // the state of random
	touch  byte       // keeps prefetch from being optimised away
}

func newFastPath(b *Bound) *fastPath {
	f := &fastPath{
		fastScopes: newFastScopes(b), server: b.server, soa: newSOATemplate(b.server.zone), rand: rand.Uint64(),
	}
	f.change.visit = f.serviceChanged
	return f
}

// answer answers the query in buf[:n] in place and returns the length of the
// reply, or 0 if the ordinary path must answer. After 0, buf is unchanged.
func (f *fastPath) answer(buf []byte, n int, client netip.Addr) int {
	q := &f.one[0]
	if !f.begin() || !f.read(q, buf, n, client) {
		return 0
	}
	n = f.reply(q, buf)
	f.counts.flush(f.server.met)
	return n
}

// recovered makes the result of a method that panicked that of a question for
// the ordinary path, which is where the panic is reported.
func (f *fastPath) recovered(ok *bool) {
	if recover() != nil {
		f.forget()
		f.stale, *ok = nil, false
	}
}

// begin starts a batch of packets. If it returns false, all of the batch is for
// the ordinary path.
func (f *fastPath) begin() (ok bool) {
	defer f.recovered(&ok)
	f.fastScopes.begin()
	return true
}

// read reads a packet and finds the scope of its client. If it returns false,
// the packet is for the ordinary path.
func (f *fastPath) read(q *asked, buf []byte, n int, client netip.Addr) (ok bool) {
	defer f.recovered(&ok)
	if f.server.sample.every > 0 && f.server.sample.leave() || !q.parse(buf, n, f.server.cfg.MaxUDPPayload) {
		return false
	}
	q.scope = f.ofClient(client)
	q.hash = hashKey(q.key())
	return true
}

// prefetch loads the slot and the entry of the answer, so that the cache misses
// of a batch overlap instead of following each other.
func (f *fastPath) prefetch(qs []asked) {
	for i := range qs {
		qs[i].ref = qs[i].scope.table.maybe(qs[i].hash)
	}
	for i := range qs {
		if qs[i].ref != 0 {
			e, data := qs[i].scope.table.at(qs[i].ref)
			f.touch += e.flags + data[min(len(data)-1, 64-entryHead)]
		}
	}
}

// reply answers the question in place and returns the length of the reply, or 0
// if the ordinary path must answer; then buf is unchanged.
func (f *fastPath) reply(q *asked, buf []byte) (n int) {
	ok := true
	defer func() {
		if !ok {
			n = 0
		}
	}()
	defer f.recovered(&ok)
	sc := q.scope
	ref := sc.table.find(q.hash, q.key())
	if ref == 0 || !f.current(sc, q, ref) {
		if ref, n = f.lookup(sc, q, buf); ref == 0 {
			return n
		}
	}
	e, data := sc.table.at(ref)
	if e.flags&flagTooLarge != 0 {
		return 0
	}
	if n = q.end + int(e.bodyLen); q.edns {
		n += optLen
	}
	if n > min(q.size, len(buf)) {
		return 0
	}
	f.header(q, buf, e.rcode, e.counts, e.extra)
	end := q.end + f.body(buf[q.end:], e, data[e.keyLen:])
	f.opt(q, buf[end:])
	f.counts.add(q.kind, e.counts>>16 == 0)
	return n
}

// lookup handles a name without a true packed answer: it packs one and returns
// its reference, or denies the name in place and returns the reply's length, or
// leaves it to the ordinary path.
func (f *fastPath) lookup(sc *fastScope, q *asked, buf []byte) (ref uint64, n int) {
	name, ok := f.text.of(q)
	if !ok {
		return 0, 0
	}
	v := f.zone.find(sc.clientScope, name)
	switch {
	case v.form.packable():
		return f.pack(sc, q, name, &v.target), 0
	case v.denied == deniedSingleLabel && f.bound.bare != nil: // somebody else may know it
	case v.denied != notDenied && !v.waiting:
		return 0, f.deny(q, buf, &v)
	}
	return 0, 0
}

// optLen is the length of an OPT record without options.
const optLen = 11

// header makes the header of the query that of the reply: id, RD and CD stay.
func (f *fastPath) header(q *asked, buf []byte, rcode uint8, counts uint32, extra uint8) {
	const qr, aa, rd, ra, cd = 0x80, 0x04, 0x01, 0x80, 0x10
	buf[2] = qr | aa | buf[2]&rd
	buf[3] = ra | buf[3]&cd | rcode
	binary.BigEndian.PutUint32(buf[6:], counts)
	if q.edns {
		extra++
	}
	buf[10], buf[11] = 0, extra
}

// opt appends the OPT of the reply, if there was one in the query.
func (f *fastPath) opt(q *asked, dst []byte) {
	if !q.edns {
		return
	}
	opt := [optLen]byte{2: 41, 3: byte(f.server.cfg.MaxUDPPayload >> 8), 4: byte(f.server.cfg.MaxUDPPayload)}
	if q.do {
		opt[7] = 0x80
	}
	copy(dst, opt[:])
}

// body writes the sections after the question and returns their length.
func (f *fastPath) body(dst []byte, e *entry, data []byte) int {
	n := int(e.bodyLen)
	if e.variants > 1 {
		data = data[f.random(int(e.variants))*n:]
	}
	if e.rrLen == 0 {
		return copy(dst, data[:n])
	}
	cut, rrLen := int(e.preferred)*int(e.rrLen), int(e.rrLen)
	var weights []byte
	if e.flags&flagWeighted != 0 {
		weights = data[n:]
	}
	f.rotate(dst, data[:cut], rrLen, weights)
	f.rotate(dst[cut:], data[cut:n], rrLen, weights[min(len(weights), 4*int(e.preferred)):])
	return n
}

// rotate copies equal-sized records starting at a random one, by weight if
// there are cumulative weights.
func (f *fastPath) rotate(dst, rrs []byte, rrLen int, weights []byte) {
	n := len(rrs) / rrLen
	if n < 2 {
		copy(dst, rrs)
		return
	}
	at := 0
	if len(weights) == 0 {
		at = f.random(n) * rrLen
	} else {
		last := binary.LittleEndian.Uint32(weights[4*(n-1):])
		for r := uint32(f.random(int(last))); r >= binary.LittleEndian.Uint32(weights[4*(at/rrLen):]); {
			at += rrLen
		}
	}
	k := copy(dst, rrs[at:])
	copy(dst[k:], rrs[:at])
}

// random returns a number from 0 to n-1, n < 2³¹.
func (f *fastPath) random(n int) int {
	f.rand = f.rand*6364136223846793005 + 1442695040888963407
	return int((f.rand >> 32) * uint64(n) >> 32)
}
