package resolver

// This file owns how an answer is packed: it asks the ordinary path, which makes
// the records, and stores what that says in a form that can be copied.

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// drawnOrders is how many orders are packed of an answer that is drawn and whose
// records cannot be rotated, such as those of SRV, whose names point at each other.
const drawnOrders = 4

// packing is an answer being packed.
type packing struct {
	path *fastPath  // that packs it
	sc   *fastScope // where it will be kept
	q    *asked     // the question
	full string     // the asked name, fully qualified

	// What the answer depends on besides its target.
	net      int  // index in sc.nets of the network whose VIPs it depends on; -1: none
	tooLarge bool // for a packet: the ordinary path must answer

	// The message. All bodies have as many records of as many bytes.
	rcode  uint8
	counts uint32   // ANCOUNT ‖ NSCOUNT
	extra  uint8    // ARCOUNT
	bodies [][]byte // the sections after the question; several: in other orders

	// Rotation, of answers whose records are of one size.
	rrLen   int      // bytes of each record; 0: the answer is not rotated
	first   int      // how many records come first
	weights []uint32 // how often each is the first of its kind; nil: equally often
}

// pack stores the ordinary path's answer to a question and returns its
// reference, or 0 if it is of the moment only.
func (f *fastPath) pack(sc *fastScope, q *asked, name string, t *target) uint64 {
	name = strings.Clone(name)
	p := &packing{path: f, sc: sc, q: q, full: name + ".", net: -1}
	if !p.answer(t) {
		return 0
	}
	if again := f.server.zone.find(sc.clientScope, name); !t.same(&again.target) {
		return 0 // changed meanwhile
	}
	f.makeRoom(sc, f.server.cfg.FastBytes/max(1, len(*f.server.own.Load())))
	return p.store(t)
}

// vips says whether the VIPs of a network are usable, and remembers that the
// answer depends on it.
func (p *packing) vips(network string) bool {
	p.net = p.sc.net(network)
	return p.path.usable(p.sc, p.net)
}

// answer gets the ordinary path's answer, in several orders if that is drawn and
// not rotated. It returns false if the answer must not be kept.
func (p *packing) answer(t *target) bool {
	for i := range drawnOrders {
		r := p.path.server.zone.answer(zoneQuery{
			Name: p.full, Type: p.q.qtype, Seed: uint64(i), Limit: udpLimit, Scope: p.sc.clientScope, Balanced: p.vips,
		})
		if r.Forward || len(r.Waiting) > 0 {
			return false
		}
		if !p.add(&r, t) {
			break
		}
	}
	return true
}

// add packs one answer, and reports whether others are of use.
func (p *packing) add(r *zoneResult, t *target) bool {
	msg := localReply(new(dns.Msg).SetQuestion(p.full, p.q.qtype), r)
	msg.Compress = true
	b, err := msg.Pack()
	if err != nil || r.More || len(b) > p.path.server.cfg.MaxUDPPayload {
		p.tooLarge = true
		return false
	}
	body := b[p.q.end:]
	if len(p.bodies) > 0 {
		if len(body) == len(p.bodies[0]) && len(r.Answer)<<16|len(r.Ns) == int(p.counts) && len(r.Extra) == int(p.extra) {
			p.bodies = append(p.bodies, body)
		}
		return true
	}
	p.rcode, p.counts, p.extra = uint8(r.Rcode), uint32(len(r.Answer))<<16|uint32(len(r.Ns)), uint8(len(r.Extra))
	p.bodies = append(p.bodies, body)
	if n := len(r.Answer); n > 1 && len(r.Ns)+len(r.Extra) == 0 && len(body)%n == 0 && len(body)/n <= math.MaxUint8 &&
		isAddressType(p.q.qtype) {
		p.rrLen = len(body) / n
		p.order(r, t)
		return false
	}
	return r.Drawn
}

// order finds how many answers come first, the serving tasks', and how often
// each is to be the first of its kind.
func (p *packing) order(r *zoneResult, t *target) {
	if t.form == formEndpoints || t.service == nil {
		p.first = len(r.Answer)
		return
	}
	members, preferred := t.answering()
	sums := [2]map[netip.Addr]uint32{{}, {}} // of the weights: serving, suspected
	for i, e := range members {
		ip, group := e.Addr4(), min(1, i/max(1, preferred))
		if preferred == 0 {
			group = 1
		}
		if p.q.qtype == dns.TypeAAAA {
			ip = e.Addr6()
		}
		sums[group][ip] += uint32(e.Weight())
	}
	for _, rr := range r.Answer {
		ip, _ := rrAddr(rr)
		w, serving := sums[0][ip]
		if !serving {
			w = sums[1][ip]
		} else {
			p.first++
		}
		p.weights = append(p.weights, w)
	}
	if !weighted(members[:preferred]) && !weighted(members[preferred:]) {
		p.weights = nil
	}
}

func rrAddr(rr dns.RR) (netip.Addr, bool) {
	switch rr := rr.(type) {
	case *dns.A:
		ip, ok := netip.AddrFromSlice(rr.A.To4())
		return ip, ok
	case *dns.AAAA:
		return netip.AddrFromSlice(rr.AAAA)
	}
	return netip.Addr{}, false
}

// store puts the answer into the table of the scope and returns its reference.
func (p *packing) store(t *target) uint64 {
	key, table := p.q.key(), &p.sc.table
	body := bytes.Join(p.bodies, nil)
	if p.tooLarge {
		body, p.weights = nil, nil
	}
	origin := uint32(len(p.sc.origins))
	if ref := table.find(p.q.hash, key); ref != 0 {
		e, _ := table.at(ref)
		origin = e.origin
	} else {
		p.sc.origins = append(p.sc.origins, provenance{})
	}
	kept := *t // t is the caller's
	p.sc.origins[origin] = p.sc.provenanceOf(&kept)
	e, data := table.put(p.q.hash, key, len(key)+len(body)+4*len(p.weights))
	e.seen, e.origin, e.counts, e.extra, e.rcode = p.sc.version, origin, p.counts, p.extra, p.rcode
	e.net, e.rrLen, e.preferred, e.variants = uint16(max(p.net, 0)), uint8(p.rrLen), uint8(p.first), uint8(len(p.bodies))
	if len(p.bodies) > 0 {
		e.bodyLen = uint16(len(p.bodies[0]))
	}
	if e.flags = p.flags(); p.sc.origins[origin].direct {
		e.flags |= flagDirect
	}
	p.sc.types |= 1 << p.q.kind
	copy(data[len(key):], body)
	p.putWeights(data[len(key)+len(body):])
	return table.find(p.q.hash, key)
}

func (p *packing) flags() (flags uint8) {
	if p.tooLarge {
		flags |= flagTooLarge
	}
	if p.net >= 0 {
		flags |= flagUsesVIPs
		if p.path.usable(p.sc, p.net) {
			flags |= flagVIPs
		}
	}
	if p.weights != nil {
		flags |= flagWeighted
	}
	return flags
}

// putWeights writes the weights cumulated, the suspected tasks' by themselves.
func (p *packing) putWeights(dst []byte) {
	sum := uint32(0)
	for i, w := range p.weights {
		if i == p.first {
			sum = 0
		}
		sum += w
		binary.LittleEndian.PutUint32(dst[4*i:], sum)
	}
}
