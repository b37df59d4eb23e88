package resolver

// This file owns the answer to a question as a whole: verdict, records, and what a
// negative answer says.

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"meshd/state"
)

// zone holds what Answer needs besides the question. It has no state of its
// own: its methods are safe for concurrent use while its fields stay unchanged.
type zone struct {
	Source      state.Source // what to answer from
	Domain      string       // lower case, fully qualified
	TTL         uint32       // of positive answers, in seconds
	NegativeTTL uint32       // of negative answers, in seconds

	// As in Config.
	VIPsUsable     func(network string) bool                // nil: always
	WhyNoVIPs      func(network string) string              // nil: ""
	RTT            func(state.NodeID) (time.Duration, bool) // nil: all unknown
	Notes          func(network, service string) []string   // nil: none
	SharedSuffixes []string                                 // networks
	ForwardBare    bool                                     // single labels may be forwarded
}

// zoneQuery is one question in the scope of its client.
type zoneQuery struct {
	Name  string // presentation form, fully qualified, in the case of the client
	Type  uint16
	Scope clientScope
	Seed  uint64     // of the shuffle
	Limit int        // at most so many answers; 0: no limit
	Local netip.Addr // the listener's address, for the name server's own name; may be zero
	// Balanced takes the place of zone.VIPsUsable where the client has a load
	// balancer of its own; nil: as the zone says.
	Balanced func(network string) bool
	Trace    bool // fill zoneResult.Steps
}

// zoneResult is the answer to a zoneQuery. Its records are the caller's.
type zoneResult struct {
	// Forward: the name is not ours, and the other fields but Steps are empty.
	Forward bool

	Rcode  int      // dns.RcodeSuccess or dns.RcodeNameError
	Answer []dns.RR // no record: NXDOMAIN or NODATA
	Ns     []dns.RR // the SOA of a negative answer (RFC 2308)
	Extra  []dns.RR // addresses of what the answers name

	More    bool         // zoneQuery.Limit left answers out
	Drawn   bool         // the order of the answers, or of something in them, was drawn by zoneQuery.Seed
	Waiting []state.View // the views whose first sync may bring the denied name (R4)
	Bare    bool         // a single label that no network knows
	Steps   []Step       // how the answer came about, if zoneQuery.Trace
}

// Negative reports whether r is NXDOMAIN or NODATA.
func (r *zoneResult) Negative() bool { return !r.Forward && len(r.Answer) == 0 }

// answering is one call of zone.answer: it makes the records of a name that was found.
type answering struct {
	*zone
	zoneQuery
	zoneResult

	name string     // the asked name, lower case, without its final dot
	apex int        // where in name the owner of the SOA of a negative answer begins
	ttl  uint32     // of the answers, seconds: the service's, or the zone's
	rng  *rand.Rand // of the query's choices; nil: there was none yet
}

// answer answers q from the views of the moment. It does no I/O and takes no
// lock of its own; equal views, queries and seeds give equal results.
func (z *zone) answer(q zoneQuery) zoneResult {
	name := fold(q.Name)
	v := z.find(q.Scope, name)
	a := &answering{zone: z, zoneQuery: q, name: name, apex: v.apex, ttl: z.TTL}
	a.describe(&v)
	a.Bare = v.denied == deniedSingleLabel
	switch {
	case v.form != formNone:
		a.emit(v.target)
	case v.denied == notDenied:
		a.Forward = true
	case v.waiting:
		a.deny(z.candidates(q.Scope, &v)...)
	default:
		a.deny()
	}
	a.Drawn = a.rng != nil && !a.Negative()
	return a.zoneResult
}

// deny makes the answer NXDOMAIN, and lists which of the views may yet know the
// name.
func (a *answering) deny(views ...state.View) {
	for _, v := range views {
		if !v.Synced() {
			a.Waiting = append(a.Waiting, v)
			a.step("hold", "network %s has not had its first sync: a client waits briefly", v.Network())
		}
	}
	a.Rcode, a.Ns = dns.RcodeNameError, []dns.RR{a.soa(a.owner())}
}

// owner returns the owner of the SOA of a negative answer, and of zone records.
func (a *answering) owner() string { return a.name[a.apex:] + "." }

// exists answers a name that exists: with the records, or NODATA.
func (a *answering) exists(rrs []dns.RR) {
	if len(rrs) == 0 && a.Type == dns.TypeANY { // RFC 8482 §4.2
		rrs = []dns.RR{&dns.HINFO{Hdr: a.header(dns.TypeHINFO), Cpu: "RFC8482"}}
	}
	if a.zoneResult.Answer = rrs; len(rrs) == 0 {
		a.step("nodata", "the name exists without %s records", dns.Type(a.Type))
		a.Ns = []dns.RR{a.soa(a.owner())}
	}
}

// zoneApex answers the name of a zone: the domain, a network, part of a pool.
func (a *answering) zoneApex() {
	switch a.Type {
	case dns.TypeSOA:
		soa := a.soa(a.owner())
		soa.Hdr = a.header(dns.TypeSOA)
		a.exists([]dns.RR{soa})
	case dns.TypeNS:
		a.exists([]dns.RR{&dns.NS{Hdr: a.header(dns.TypeNS), Ns: "ns." + a.Domain}})
	default:
		a.exists(nil)
	}
}

// localhost answers loopback addresses and forwards nothing (RFC 6761 §6.3).
func (a *answering) localhost() {
	a.exists(append(a.addrRRs(netip.AddrFrom4([4]byte{127, 0, 0, 1})), a.addrRRs(netip.IPv6Loopback())...))
}
