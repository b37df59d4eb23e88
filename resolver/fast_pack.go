package resolver

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// srvVariants is how many orders of an SRV answer are packed to choose from:
// its records cannot be rotated, since names in them point at each other.
const srvVariants = 4

// pack stores the ordinary path's answer to a question and returns its
// reference, or 0 if it is of the moment only.
func (f *fastPath) pack(sc *fastScope, q *asked, name string, m *meaning) uint64 {
	name = strings.Clone(name)
	p := &packing{fastPath: f, sc: sc, q: q, full: name + ".", net: -1}
	if !p.answer(m) {
		return 0
	}
	if again := f.locate(sc, name); !m.is(&again.meaning) {
		return 0 // changed meanwhile
	}
	f.makeRoom(sc)
	return p.store(m)
}

// makeRoom drops the packed answers of the listener if they take too much
// memory: its share of what all listeners may take.
func (f *fastPath) makeRoom(sc *fastScope) {
	if sc.table.end < pageSize-(1<<13) && len(sc.table.pages) > 0 { // not about to take another page
		return
	}
	total := 0
	for _, s := range f.scopes {
		total += s.table.bytes() + len(s.deps)*depSize
	}
	share := f.server.cfg.FastBytes / max(1, len(*f.server.own.Load()))
	if total < max(share, minFastBytes) {
		return
	}
	for _, s := range f.scopes {
		s.table, s.deps, s.types = packedTable{}, nil, 0
	}
}

const (
	minFastBytes = 1 << 20 // of a listener, however many there are
	depSize      = 24
)

// packing is an answer being packed.
type packing struct {
	*fastPath
	sc   *fastScope
	q    *asked
	full string

	net     int // whose VIPs it depends on; -1: none
	unfit   bool
	rcode   uint8
	counts  uint32
	extra   uint8
	bodies  [][]byte // of equal lengths
	rrLen   int
	first   int // answers that come first
	weights []uint32
}

// vips says whether the VIPs of a network are usable, and notes the dependency.
func (p *packing) vips(network string) bool {
	p.net = p.sc.net(network)
	return p.usable(p.sc, p.net)
}

// answer gets the ordinary path's answer. It returns false if the answer must
// not be kept.
func (p *packing) answer(m *meaning) bool {
	variants := 1
	if m.form == formSRV {
		variants = srvVariants
	}
	for i := range variants {
		r := p.server.zone.Answer(Query{
			Name: p.full, Type: p.q.qtype, Seed: uint64(i), Limit: udpLimit, Scope: p.sc.Scope, Balanced: p.vips,
		})
		if r.Forward || len(r.Waiting) > 0 {
			return false
		}
		if !p.add(&r, m) {
			break
		}
	}
	return true
}

// add packs one answer, and reports whether others are of use.
func (p *packing) add(r *Result, m *meaning) bool {
	msg := localReply(new(dns.Msg).SetQuestion(p.full, p.q.qtype), r)
	msg.Compress = true
	b, err := msg.Pack()
	if err != nil || r.More || len(b) > p.server.cfg.MaxUDPPayload {
		p.unfit = true
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
		isAddress(p.q.qtype) {
		p.rrLen = len(body) / n
		p.order(r, m)
	}
	return len(r.Answer) > 1
}

func isAddress(qtype uint16) bool { return qtype == dns.TypeA || qtype == dns.TypeAAAA }

// order finds how many answers come first, the serving tasks', and how often
// each is to be the first of its kind.
func (p *packing) order(r *Result, m *meaning) {
	if m.form == formEndpoints || m.service == nil {
		p.first = len(r.Answer)
		return
	}
	members, preferred := m.service.Serving()
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

// store puts the answer into the table of the scope.
func (p *packing) store(m *meaning) uint64 {
	key, t := p.q.key(), &p.sc.table
	body := bytes.Join(p.bodies, nil)
	if p.unfit {
		body, p.weights = nil, nil
	}
	d := uint32(len(p.sc.deps))
	if ref := t.find(p.q.hash, key); ref != 0 {
		e, _ := t.at(ref)
		d = e.dep
	} else {
		p.sc.deps = append(p.sc.deps, dep{})
	}
	kept := *m // m is the caller's
	p.sc.deps[d] = kept.dep(p.sc)
	e, data := t.put(p.q.hash, key, len(key)+len(body)+4*len(p.weights))
	e.seen, e.dep, e.counts, e.extra, e.rcode = p.sc.version, d, p.counts, p.extra, p.rcode
	e.net, e.rrLen, e.preferred, e.variants = uint16(max(p.net, 0)), uint8(p.rrLen), uint8(p.first), uint8(len(p.bodies))
	if len(p.bodies) > 0 {
		e.bodyLen = uint16(len(p.bodies[0]))
	}
	if e.flags = p.flags(); p.sc.deps[d].direct {
		e.flags |= flagDirect
	}
	p.sc.types |= 1 << slices.Index(fastTypes[:], p.q.qtype)
	copy(data[len(key):], body)
	p.putWeights(data[len(key)+len(body):])
	return t.find(p.q.hash, key)
}

func (p *packing) flags() (flags uint8) {
	if p.unfit {
		flags |= flagUnfit
	}
	if p.net >= 0 {
		flags |= flagUsesVIPs
		if p.usable(p.sc, p.net) {
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

// soaTemplate is what is the same in the SOA of all negative answers.
type soaTemplate struct {
	fixed  [10]byte // type, class, TTL, and room for the length
	mname  []byte   // in wire form, without the domain
	rname  []byte
	domain []byte // in wire form
	times  []byte
}

// newSOATemplate takes the zone's SOA apart.
func newSOATemplate(z *Zone) (t soaTemplate) {
	soa := z.soa(z.Domain)
	t.domain = wireName(z.Domain)
	t.mname, t.rname = bytes.TrimSuffix(wireName(soa.Ns), t.domain), bytes.TrimSuffix(wireName(soa.Mbox), t.domain)
	b := make([]byte, 1024)
	n, err := dns.PackRR(soa, b, 0, nil, false)
	if err != nil {
		return soaTemplate{} // a domain too long for its name server's name
	}
	copy(t.fixed[:], b[len(t.domain):])
	t.times = b[n-20 : n : n]
	return t
}

func wireName(name string) []byte {
	b := make([]byte, 256)
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err != nil {
		return nil
	}
	return b[:n]
}

// deny writes NXDOMAIN with the SOA of the zone and returns the reply's length.
func (f *fastPath) deny(q *asked, buf []byte, v *verdict) int {
	t := &f.soa
	n := q.end + 2 + len(t.fixed) + len(t.mname) + len(t.domain) + len(t.rname) + 2 + len(t.times) + optLen
	if n > min(q.size, len(buf)) || t.times == nil {
		return 0
	}
	f.header(q, buf, dns.RcodeNameError, 1, 0)
	at := q.end
	at += putPointer(buf[at:], 12+v.apex)
	at += copy(buf[at:], t.fixed[:])
	data := at
	at += copy(buf[at:], t.mname)
	zone := 12 + v.zone
	if v.zone < 0 { // the domain is not in the question: spell it out
		zone = at
		at += copy(buf[at:], t.domain)
	} else {
		at += putPointer(buf[at:], zone)
	}
	at += copy(buf[at:], t.rname)
	at += putPointer(buf[at:], zone)
	at += copy(buf[at:], t.times)
	binary.BigEndian.PutUint16(buf[data-2:], uint16(at-data))
	f.opt(q, buf[at:])
	if q.edns {
		at += optLen
	}
	f.counts.add(q.qtype, true)
	return at
}

// putPointer writes a compressed name (RFC 1035 §4.1.4).
func putPointer(dst []byte, offset int) int {
	binary.BigEndian.PutUint16(dst, 0xc000|uint16(offset))
	return 2
}
