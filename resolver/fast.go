package resolver

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"meshd/state"
)

// maxPacked bounds the pre-packed answers of one listener.
const maxPacked = 1 << 14

// fastPath answers the common questions in the receive buffer from answers
// packed before (R6): <service> and tasks.<service>, bare or fully qualified, A
// and AAAA. Whatever is unusual it leaves to the ordinary path, which gives the
// same answers; a differential fuzz test holds the two together. It belongs to
// the goroutine that reads the socket: no lock, no allocation but for packing.
type fastPath struct {
	server *Server
	bound  *Bound
	packed map[string]*packed // by lower-case wire name ‖ type ‖ network, the last of bare names only
	key    []byte
	rand   uint64
}

// packed is the answer to one question, valid as long as its service is the
// current one in the network's current view.
type packed struct {
	network, name string
	view          state.View
	service       *state.Service
	vips          bool   // VIPsUsable at the time
	unfit         bool   // the ordinary path must answer
	counts        uint32 // ANCOUNT ‖ NSCOUNT
	rcode         byte
	body          []byte // all sections after the question
	rrLen         int    // of each answer, if they can be rotated; else 0
	preferred     int    // how many answers come first
}

func newFastPath(b *Bound) *fastPath {
	return &fastPath{server: b.server, bound: b, packed: map[string]*packed{}, key: make([]byte, 0, 512), rand: rand.Uint64()}
}

// answer answers the query in buf[:n] in place and returns the length of the
// reply, or 0 if the ordinary path must answer. After 0, buf is unchanged. A
// panic counts as 0: the ordinary path is where it is reported.
func (f *fastPath) answer(buf []byte, n int, client netip.Addr) (reply int) {
	defer func() {
		if recover() != nil {
			f.packed = map[string]*packed{}
			reply = 0
		}
	}()
	return f.tryAnswer(buf, n, client)
}

func (f *fastPath) tryAnswer(buf []byte, n int, client netip.Addr) int {
	q, ok := f.parse(buf[:n])
	if !ok {
		return 0
	}
	p := f.find(&q, client)
	if p == nil || p.unfit {
		return 0
	}
	total := q.end + len(p.body)
	if q.edns {
		total += 11
	}
	if total > min(q.size, len(buf)) {
		return 0
	}
	f.write(buf, &q, p)
	f.server.met.query(false, q.qtype, p.outcome(), 0)
	return total
}

func (p *packed) outcome() Outcome {
	if p.counts>>16 == 0 {
		return OutcomeNegative
	}
	return OutcomeLocal
}

// find returns the valid packed answer, packing it if need be, or nil.
func (f *fastPath) find(q *asked, client netip.Addr) *packed {
	if p := f.packed[string(f.key)]; p != nil { // a qualified name
		if f.sees(p.network, client) {
			return f.current(p, q)
		}
		return nil
	}
	first := f.first(client)
	bare := len(f.key)
	f.key = append(f.key, first...)
	if p := f.packed[string(f.key)]; p != nil && first != "" {
		return f.current(p, q)
	}
	p := f.pack(q, client, first)
	if p == nil {
		return nil
	}
	if len(f.packed) >= maxPacked {
		clear(f.packed)
	}
	if strings.IndexByte(p.name, '.') >= 0 {
		f.key = f.key[:bare]
	}
	f.packed[string(f.key)] = p
	return p
}

// current returns p if it is what the ordinary path would answer now, else a
// newly packed answer, or nil if the name is no more.
func (f *fastPath) current(p *packed, q *asked) *packed {
	v := f.server.cfg.Source.View(p.network)
	if v == nil {
		delete(f.packed, string(f.key))
		return nil
	}
	s := v.Service(p.service.Name)
	if s == p.service && v == p.view && f.vips(p.network) == p.vips {
		return p
	}
	delete(f.packed, string(f.key))
	if s == nil {
		return nil
	}
	if p = f.build(v, s, p.name, q); p != nil {
		f.packed[string(f.key)] = p
	}
	return p
}

func (f *fastPath) vips(network string) bool {
	return f.bound.vips == nil || f.bound.vips(network)
}

// first returns the network in which bare names are looked up first, or "".
func (f *fastPath) first(client netip.Addr) string {
	if n := *f.bound.networks.Load(); n != nil {
		if len(n) == 0 {
			return ""
		}
		return n[0]
	}
	names, _ := f.server.cfg.Source.Networks()
	for _, n := range names {
		if f.isTask(n, client) {
			return n
		}
	}
	return ""
}

// sees reports whether the client's scope has the network, by itself: host
// scope is left to the ordinary path.
func (f *fastPath) sees(network string, client netip.Addr) bool {
	if ns := *f.bound.networks.Load(); ns != nil {
		return slices.Contains(ns, network)
	}
	return f.isTask(network, client)
}

func (f *fastPath) isTask(network string, client netip.Addr) bool {
	v := f.server.cfg.Source.View(network)
	return v != nil && v.ByIP(client).Endpoint != nil
}

// pack makes the answer for a question that has none yet, or returns nil if it
// is not of the fast path's kinds.
func (f *fastPath) pack(q *asked, client netip.Addr, first string) *packed {
	name, ok := plainName(f.key[:q.end-12-4])
	if !ok {
		return nil
	}
	rest, qualified := cutDomain(name, strings.TrimSuffix(f.server.cfg.Domain, "."))
	network, rel := first, name
	if qualified {
		if rel, network = cutLast(rest); !f.sees(network, client) {
			return nil
		}
	}
	if network == "" || rel == "" || rel == "localhost" ||
		!qualified && (strings.HasSuffix(rel, ".arpa") || strings.HasSuffix(rel, ".localhost")) {
		return nil
	}
	v := f.server.cfg.Source.View(network)
	if v == nil {
		return nil
	}
	service, isTasks := strings.CutPrefix(rel, "tasks.")
	if strings.IndexByte(service, '.') >= 0 || service == "tasks" || service == "nearest" && !isTasks {
		return nil
	}
	s := v.Service(service)
	if s == nil {
		return nil
	}
	if !qualified { // mark it by a name without dots
		return f.build(v, s, strings.ReplaceAll(rel, ".", " "), q)
	}
	return f.build(v, s, name, q)
}

// plainName is the presentation form of a lower-case wire name whose labels
// are letters, digits, '-' and '_'.
func plainName(wire []byte) (string, bool) {
	var b strings.Builder
	for len(wire) > 1 {
		l := int(wire[0])
		for _, c := range wire[1 : 1+l] {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", false
			}
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.Write(wire[1 : 1+l])
		wire = wire[1+l:]
	}
	return b.String(), b.Len() > 0
}

// build packs the answer of the ordinary path. name is without dots, its
// prefix set off by a space, if it is a bare one.
func (f *fastPath) build(v state.View, s *state.Service, name string, q *asked) *packed {
	full := dns.Fqdn(strings.ReplaceAll(name, " ", "."))
	p := &packed{network: v.Network(), name: name, view: v, service: s, vips: f.vips(v.Network())}
	r := f.server.zone.Answer(Query{Name: full, Type: q.qtype, Limit: udpLimit, Scope: Scope{Networks: []string{p.network}}, Balanced: f.bound.vips})
	if f.vips(p.network) != p.vips || v.Service(s.Name) != s {
		return nil // changed meanwhile
	}
	if r.Forward || r.More || len(r.Waiting) > 0 || len(r.Extra) > 0 {
		p.unfit = true
		return p
	}
	m := localReply(new(dns.Msg).SetQuestion(full, q.qtype), &r)
	m.Compress = true
	b, err := m.Pack()
	if p.unfit = err != nil || len(b) > f.server.cfg.MaxUDPPayload; p.unfit {
		return p
	}
	p.body, p.rcode = b[q.end:], byte(m.Rcode)
	p.counts = uint32(len(r.Answer))<<16 | uint32(len(r.Ns))
	if n := len(r.Answer); n > 1 && len(p.body)%n == 0 {
		p.rrLen = len(p.body) / n
		p.preferred = f.preferred(s, q.qtype, &r)
	}
	return p
}

// preferred counts the answers that are serving tasks' addresses.
func (f *fastPath) preferred(s *state.Service, qtype uint16, r *Result) int {
	members, n := s.Serving()
	serving := map[netip.Addr]bool{}
	for _, e := range members[:n] {
		if qtype == dns.TypeA {
			serving[e.Addr4()] = true
		} else {
			serving[e.Addr6()] = true
		}
	}
	count := 0
	for _, rr := range r.Answer {
		if ip, _ := rrAddr(rr); serving[ip] {
			count++
		}
	}
	return count
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
