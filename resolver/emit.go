package resolver

// This file owns the records of names that are found, by their form.

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"meshd/state"
)

// maxExtra bounds the additional records of an SRV answer.
const maxExtra = 64

// emit answers a name that was found.
func (a *answering) emit(t target) {
	if t.service != nil {
		a.useTTL(t.service)
	}
	switch t.form {
	case formEmpty:
		a.exists(nil)
	case formApex, formDomain, formPool:
		a.zoneApex()
	case formNameServer:
		a.exists(a.addrRRs(a.Local))
	case formLocalhost:
		a.localhost()
	case formAddress:
		a.emitPTR(t)
	case formEndpoints:
		a.emitEndpoints(t)
	case formSRV:
		a.emitSRV(t)
	case formService:
		if a.vipAnswers(t.service) {
			a.exists(append(a.addrRRs(t.service.VIP4), a.addrRRs(t.service.VIP6)...))
			return
		}
		a.emitTasks(t)
	default:
		a.emitTasks(t)
	}
}

// useTTL makes the answers have the service's TTL, if it has one (S8).
func (a *answering) useTTL(s *state.Service) {
	if s.TTL > 0 {
		a.ttl = uint32(s.TTL / time.Second)
	}
}

// vipAnswers reports whether the service's name answers with its VIP (R5, V7).
func (a *answering) vipAnswers(s *state.Service) bool {
	usable := a.Balanced
	if usable == nil {
		usable = a.VIPsUsable
	}
	return s.Mode == state.ModeVIP && (s.VIP4.IsValid() || s.VIP6.IsValid()) && (usable == nil || usable(s.Network))
}

// emitTasks answers with the addresses of the tasks. A service with none is
// NXDOMAIN, as some clients cache NODATA for an hour (R4).
func (a *answering) emitTasks(t target) {
	members, _ := t.service.Serving()
	if members.Len() == 0 {
		a.step("nxdomain", "service %s has no task to serve", t.service.Name)
		a.deny(t.view)
		return
	}
	if !isAddressType(a.Type) {
		a.exists(nil)
		return
	}
	if !members.Contain(t.answers) {
		a.step("target", "no task listens at a port of the service; SRV tells where")
	}
	a.exists(a.addresses(a.members(t)))
}

// answers reports whether the name is answered with the address of a task, where it is
// answered with tasks. Clients of a VIP that is not balanced here would go to the
// service's port at that address, where another program may listen, if anything (L16).
func (t *target) answers(e *state.Entry) bool {
	return t.form != formService || t.service.Mode != state.ModeVIP || !e.OnlyMapped()
}

// emitEndpoints answers the name of a task, or of several that share it.
func (a *answering) emitEndpoints(t target) {
	if !isAddressType(a.Type) {
		a.exists(nil)
		return
	}
	a.exists(a.addresses(a.shuffle(slices.Clone(t.endpoints))))
}

// isAddressType reports whether questions of the type are answered with the
// addresses of one family.
func isAddressType(qtype uint16) bool { return qtype == dns.TypeA || qtype == dns.TypeAAAA }

// emitPTR answers a reverse name with the qualified name of what has the address.
func (a *answering) emitPTR(t target) {
	if a.Type != dns.TypePTR {
		a.exists(nil)
		return
	}
	a.exists([]dns.RR{&dns.PTR{Hdr: a.header(dns.TypePTR), Ptr: a.nameOfAddress(&t)}})
}

// nameOfAddress returns the qualified name of the service or task of formAddress.
func (a *answering) nameOfAddress(t *target) string {
	if s := t.address.Service; s != nil {
		return s.Name + "." + t.view.Network() + "." + a.Domain
	}
	ep := t.address.Endpoint.Endpoint()
	return a.taskName(&ep, t.view.Network())
}

// answering returns the tasks that are answered with, the serving ones first. The slice
// is the caller's.
func (t *target) answering() (all []*state.Entry, preferred int) {
	members, serving := t.service.Serving()
	all = make([]*state.Entry, 0, members.Len())
	for i, e := range members.All() {
		if t.answers(e) {
			all = append(all, e)
			preferred += min(1, max(0, serving-i))
		}
	}
	return all, preferred
}

// members returns the tasks in the order to answer: the serving ones, then the
// suspected ones, each shuffled by weight, or by RTT for nearest.<service>.
func (a *answering) members(t target) []*state.Entry {
	all, preferred := t.answering()
	for _, group := range [][]*state.Entry{all[:preferred], all[preferred:]} {
		switch {
		case t.form == formNearest:
			a.shuffle(group) // equally near ones in turn
			a.byRTT(group)
		case weighted(group):
			a.byWeight(group)
		default:
			a.shuffle(group)
		}
	}
	return all
}

// shuffle permutes es in place by the seed of the query and returns it.
func (a *answering) shuffle(es []*state.Entry) []*state.Entry {
	if len(es) > 1 {
		a.random().Shuffle(len(es), func(i, j int) { es[i], es[j] = es[j], es[i] })
	}
	return es
}

// random returns the source of the query's choices. An answer that made use of
// it counts as drawn.
func (a *answering) random() *rand.Rand {
	if a.rng == nil {
		a.rng = rand.New(rand.NewPCG(a.Seed, 0x9e3779b97f4a7c15))
	}
	return a.rng
}

// weighted reports whether the tasks have different weights.
func weighted(es []*state.Entry) bool {
	return slices.ContainsFunc(es, func(e *state.Entry) bool { return e.Weight() != es[0].Weight() })
}

// byWeight permutes es in place so that each place falls to a task with a
// probability proportional to its weight among those that are left: clients
// that take the first address spread as the weights say. It sorts by
// exponentially distributed times of arrival, whose rates are the weights.
func (a *answering) byWeight(es []*state.Entry) {
	type arrival struct {
		at float64
		e  *state.Entry
	}
	order := make([]arrival, len(es))
	for i, e := range es {
		order[i] = arrival{a.random().ExpFloat64() / float64(e.Weight()), e}
	}
	slices.SortFunc(order, func(x, y arrival) int { return cmp.Compare(x.at, y.at) })
	for i, o := range order {
		es[i] = o.e
	}
}

// byRTT sorts es by the round-trip time to the owner, unknown ones last.
func (a *answering) byRTT(es []*state.Entry) {
	if a.RTT == nil {
		return
	}
	rtts := make(map[state.NodeID]time.Duration)
	for _, e := range es {
		if _, done := rtts[e.Owner()]; done {
			continue
		}
		rtts[e.Owner()] = 1<<63 - 1
		if d, ok := a.RTT(e.Owner()); ok {
			rtts[e.Owner()] = d
		}
	}
	slices.SortStableFunc(es, func(x, y *state.Entry) int {
		return int(min(1, max(-1, rtts[x.Owner()]-rtts[y.Owner()])))
	})
}

// addresses makes the records of the asked family, without repeats: tasks on
// the host's network share its address.
func (a *answering) addresses(es []*state.Entry) []dns.RR {
	var rrs []dns.RR
	seen := make(map[netip.Addr]struct{}, min(len(es), udpLimit))
	for _, e := range es {
		ip := e.Addr4()
		if a.Type == dns.TypeAAAA {
			ip = e.Addr6()
		}
		if _, dup := seen[ip]; dup || !ip.IsValid() {
			continue
		}
		if a.Limit > 0 && len(rrs) == a.Limit {
			a.More = true
			break
		}
		seen[ip] = struct{}{}
		rrs = append(rrs, a.addrRRs(ip)...)
	}
	return rrs
}

// addrRRs makes the record of one address, if it has the asked family.
func (a *answering) addrRRs(ip netip.Addr) []dns.RR {
	switch {
	case a.Type == dns.TypeA && ip.Is4():
		return []dns.RR{&dns.A{Hdr: a.header(dns.TypeA), A: ip.AsSlice()}}
	case a.Type == dns.TypeAAAA && ip.Is6():
		return []dns.RR{&dns.AAAA{Hdr: a.header(dns.TypeAAAA), AAAA: ip.AsSlice()}}
	}
	return nil
}

// emitSRV answers _port._proto.<service> with one record per task and port, at which
// the task itself listens (RFC 2782, L16). Suspected tasks have the worse priority.
func (a *answering) emitSRV(t target) {
	if a.Type != dns.TypeSRV {
		a.exists(nil)
		return
	}
	var rrs []dns.RR
	_, preferred := t.service.Serving() // all answer
	for i, e := range a.members(t) {
		ep := e.Endpoint()
		target := a.taskName(&ep, t.view.Network())
		for _, p := range ep.Ports {
			if p.Proto != t.proto || !isPort(p, t.port) {
				continue
			}
			if a.Limit > 0 && len(rrs) == a.Limit {
				a.More = true
				break
			}
			rrs = append(rrs, a.srv(target, p, e.Weight(), i >= preferred))
			a.additional(target, &ep)
		}
	}
	a.exists(rrs)
}

func (a *answering) srv(target string, p state.Port, weight uint16, suspect bool) dns.RR {
	rr := &dns.SRV{Hdr: a.header(dns.TypeSRV), Weight: weight, Port: p.Listens(), Target: target}
	if suspect {
		rr.Priority = 10
	}
	return rr
}

// additional adds the addresses of an SRV target.
func (a *answering) additional(name string, ep *state.Endpoint) {
	if len(a.Extra) >= maxExtra || slices.ContainsFunc(a.Extra, func(rr dns.RR) bool { return rr.Header().Name == name }) {
		return
	}
	h := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: a.ttl}
	if ep.IP4.IsValid() {
		h.Rrtype = dns.TypeA
		a.Extra = append(a.Extra, &dns.A{Hdr: h, A: ep.IP4.AsSlice()})
	}
	if ep.IP6.IsValid() {
		h.Rrtype = dns.TypeAAAA
		a.Extra = append(a.Extra, &dns.AAAA{Hdr: h, AAAA: ep.IP6.AsSlice()})
	}
}

// isPort reports whether p has the name or number of an SRV label.
func isPort(p state.Port, label string) bool {
	return p.Name == label || strconv.Itoa(int(p.Number)) == label
}

func (a *answering) taskName(ep *state.Endpoint, network string) string {
	return ep.TaskName() + "." + network + "." + a.Domain
}

// header makes the header of an answer, in the case of the question.
func (a *answering) header(rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: a.Name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: a.ttl}
}

// soa makes the SOA of the zone (RFC 2308 §3: its TTL is the negative TTL).
func (z *zone) soa(apex string) *dns.SOA {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: z.NegativeTTL},
		Ns:  "ns." + z.Domain, Mbox: "hostmaster." + z.Domain,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: z.NegativeTTL,
	}
}
