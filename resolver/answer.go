package resolver

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/state"
)

// Zone holds what Answer needs besides the question. It has no state of its
// own: its methods are safe for concurrent use while its fields stay unchanged.
type Zone struct {
	Source         state.Source
	Domain         string // lower case, fully qualified
	TTL            uint32 // seconds
	NegativeTTL    uint32 // seconds
	WhyNoVIPs      func(network string) string
	VIPsUsable     func(network string) bool
	RTT            func(state.NodeID) (time.Duration, bool)
	Notes          func(network, service string) []string
	SharedSuffixes []string
	ForwardBare    bool
}

// Query is one question in the scope of its client.
type Query struct {
	Name  string // presentation form, fully qualified, in the case of the client
	Type  uint16
	Scope Scope
	Seed  uint64     // of the shuffle
	Limit int        // at most so many answers; 0: no limit
	Local netip.Addr // the listener's address, for the name server's own name; may be zero
	// Balanced takes the place of Zone.VIPsUsable where the client has a load
	// balancer of its own; nil: as the zone says.
	Balanced func(network string) bool
	Trace    bool // fill Result.Steps
}

// Result is the answer to a Query. Its records are the caller's.
type Result struct {
	// Forward: the name is not ours; the other fields are empty.
	Forward bool
	Rcode   int // dns.RcodeSuccess or dns.RcodeNameError
	Answer  []dns.RR
	Ns      []dns.RR // the SOA of a negative answer (RFC 2308)
	Extra   []dns.RR
	More    bool         // Query.Limit left answers out
	Waiting []state.View // an unknown local name: the views whose first sync may bring it (R4)
	Steps   []Step       // how the answer came about, if Query.Trace
}

// Negative reports whether r is NXDOMAIN or NODATA.
func (r *Result) Negative() bool { return !r.Forward && len(r.Answer) == 0 }

// answering is one call of Answer.
type answering struct {
	*Zone
	Query
	Result
	apex string // owner of the SOA in a negative answer
	ttl  uint32 // of the answers, seconds: the service's, or the zone's
	rng  *rand.Rand
}

// Answer answers q from the views of the moment. It does no I/O and takes no
// lock of its own; equal views, queries and seeds give equal results.
func (z *Zone) Answer(q Query) Result {
	a := &answering{Zone: z, Query: q, apex: z.Domain, ttl: z.TTL}
	a.step("scope", "%s", q.Scope)
	name := fold(q.Name)
	if rest, ok := cutDomain(name, strings.TrimSuffix(z.Domain, ".")); ok {
		a.underDomain(rest)
	} else if rest, ok := cutDomain(name, "localhost"); ok {
		a.localhost(rest)
	} else if p, ok := reverseAddr(name); ok {
		a.reverse(p)
	} else {
		a.relative(name)
	}
	return a.Result
}

// underDomain answers names under the domain: <name>.<network>.<domain>.
func (a *answering) underDomain(rest string) {
	if rest == "" {
		a.step("name", "the zone %s", a.Domain)
		a.zoneApex()
		return
	}
	rel, network := cutLast(rest)
	v := a.view(network)
	if v == nil {
		a.unknownNetwork(rest, network)
		return
	}
	a.apex = network + "." + a.Domain
	a.step("name", "%q in network %s", rel, network)
	if t := find(v, rel); t.form != formNone {
		a.emit(t)
		return
	}
	a.missing("no such name in network "+network, v)
}

// unknownNetwork denies names of networks outside of the scope, but for the
// name server's own name.
func (a *answering) unknownNetwork(rest, network string) {
	if rest == "ns" {
		a.step("name", "this name server")
		a.exists(a.addrRRs(a.Local))
		return
	}
	a.missing("network " + network + " is not in scope")
}

// view returns the view of a network in scope, or nil.
func (a *answering) view(network string) state.View {
	if !a.Scope.sees(network) {
		return nil
	}
	return a.Source.View(network)
}

// relative answers <name> and <name>.<network>.
func (a *answering) relative(name string) {
	_, last := cutLast(name)
	a.apex = last + "." // of a relative name, its own last label stands for the zone
	if name != "" {
		if t, ok := a.search(name); ok {
			a.emit(t)
			return
		}
	}
	if why := a.local(name); why != "" {
		a.missing(why, a.scopeViews()...)
		return
	}
	a.step("forward", "not a name of ours")
	a.Forward = true
}

// search looks a name up in the networks of the scope, then as <name>.<network>.
func (a *answering) search(name string) (target, bool) {
	for _, v := range a.scopeViews() {
		if t := find(v, name); t.form != formNone {
			a.step("name", "%q in network %s", name, v.Network())
			return t, true
		}
	}
	rel, network := cutLast(name)
	v := a.view(network)
	if v == nil {
		return target{}, false
	}
	t := find(v, rel)
	a.step("name", "%q in network %s", rel, network)
	return t, t.form != formNone
}

// scopeViews returns the views to search for names without a network.
func (a *answering) scopeViews() []state.View {
	var vs []state.View
	for _, n := range a.Scope.Networks {
		if v := a.Source.View(n); v != nil {
			vs = append(vs, v)
		}
	}
	return vs
}

// local says why an unknown name must not leave this node (R3), or "".
func (a *answering) local(name string) string {
	first, rest, _ := strings.Cut(name, ".")
	_, last := cutLast(name)
	switch n := labels(name); {
	case name == "":
		return ""
	case n == 1 && !a.ForwardBare:
		return "single-label names are never forwarded"
	case n > 1 && a.Source.View(last) != nil && !slices.Contains(a.SharedSuffixes, last):
		return "no such name in network " + last + ", or the network is not in scope"
	case n == 2 && (first == "tasks" || first == "nearest"):
		return first + ".<service> is never forwarded"
	case n <= 3 && isSRVName(name):
		return "_port._proto.<service> is never forwarded"
	case n == 3 && a.isTaskName(first, rest):
		return "no such task of service " + first
	}
	return ""
}

// isSRVName reports whether the name is _proto.<x> or _port._proto.<x>.
func isSRVName(name string) bool {
	port, rest, _ := strings.Cut(name, ".")
	proto, x, _ := strings.Cut(rest, ".")
	_, two := protoOf(port)
	_, three := protoOf(proto)
	return two && x == "" || three && strings.HasPrefix(port, "_")
}

// isTaskName reports whether <service>.<slot>.<id> begins with a service in scope.
func (a *answering) isTaskName(service, rest string) bool {
	slot, _, _ := strings.Cut(rest, ".")
	return digits(slot) && slices.ContainsFunc(a.scopeViews(), func(v state.View) bool {
		return v.Service(service) != nil
	})
}

// missing makes the answer NXDOMAIN, and lists which of the views may yet know the name.
func (a *answering) missing(why string, views ...state.View) {
	a.step("nxdomain", "%s", why)
	for _, v := range views {
		if !v.Synced() {
			a.Waiting = append(a.Waiting, v)
			a.step("hold", "network %s has not had its first sync: a client waits briefly", v.Network())
		}
	}
	a.Rcode, a.Ns = dns.RcodeNameError, []dns.RR{a.soa(a.apex)}
}

// exists answers a name that exists: with the records, or NODATA.
func (a *answering) exists(rrs []dns.RR) {
	if len(rrs) == 0 && a.Type == dns.TypeANY { // RFC 8482 §4.2
		rrs = []dns.RR{&dns.HINFO{Hdr: a.header(dns.TypeHINFO), Cpu: "RFC8482"}}
	}
	if a.Result.Answer = rrs; len(rrs) == 0 {
		a.step("nodata", "the name exists without %s records", dns.Type(a.Type))
		a.Ns = []dns.RR{a.soa(a.apex)}
	}
}

// zoneApex answers the name of a zone: the domain, a network, part of a pool.
func (a *answering) zoneApex() {
	switch a.Type {
	case dns.TypeSOA:
		soa := a.soa(a.apex)
		soa.Hdr = a.header(dns.TypeSOA)
		a.exists([]dns.RR{soa})
	case dns.TypeNS:
		a.exists([]dns.RR{&dns.NS{Hdr: a.header(dns.TypeNS), Ns: "ns." + a.Domain}})
	default:
		a.exists(nil)
	}
}

// localhost answers loopback addresses and forwards nothing (RFC 6761 §6.3).
func (a *answering) localhost(string) {
	a.apex = "localhost."
	a.step("name", "localhost (RFC 6761)")
	a.exists(append(a.addrRRs(netip.AddrFrom4([4]byte{127, 0, 0, 1})), a.addrRRs(netip.IPv6Loopback())...))
}
