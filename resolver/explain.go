package resolver

// This file owns the text for people of how a name is answered. It changes no
// answer.

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/miekg/dns"

	"meshd/state"
)

// Step is one decision on the way to an answer, for people.
type Step struct {
	Rule string `json:"rule"` // scope, name, service, nodata, nxdomain, hold, forward
	Text string `json:"text"`
}

// Explanation says how a question is answered and why: `meshctl resolve`.
type Explanation struct {
	Name    string   `json:"name"`            // fully qualified, or as it was asked
	Type    string   `json:"type"`            // of the question
	Scope   string   `json:"scope"`           // for people
	Rcode   string   `json:"rcode"`           // NOERROR, NXDOMAIN; empty if forwarded
	Outcome string   `json:"outcome"`         // local, negative or forwarded
	Answer  []string `json:"answer"`          // records in zone-file syntax
	Extra   []string `json:"extra,omitempty"` // additional records
	Held    bool     `json:"held,omitempty"`  // a client would wait for the first sync (R4)
	Steps   []Step   `json:"steps"`           // in order
}

// Explain answers a question as for a client of the network, "" for host
// scope, and says why. It neither forwards nor holds. The error names a bad
// type or a network that this node does not take part in.
func (z *zone) Explain(network, name, qtype string) (Explanation, error) {
	t, ok := dns.StringToType[strings.ToUpper(cmp.Or(qtype, "A"))]
	if !ok {
		return Explanation{}, fmt.Errorf("resolve %s: type %q: use one of %s", name, qtype,
			strings.Join(state.RecordTypes(), ", "))
	}
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return Explanation{}, fmt.Errorf("resolve: name %q is not a domain name", name)
	}
	name = reverseOf(name, t)
	scope := clientScope{Host: network == ""}
	if network != "" {
		if z.Source.View(network) == nil {
			return Explanation{}, fmt.Errorf("resolve %s: network %q: this node does not take part in it", name, network)
		}
		scope.Networks = []string{network}
	}
	r := z.answer(zoneQuery{Name: dns.Fqdn(name), Type: t, Scope: scope, Trace: true})
	return explanation(name, t, scope, &r), nil
}

// reverseOf is the reverse name if a PTR of an address is asked for.
func reverseOf(name string, t uint16) string {
	if r, err := dns.ReverseAddr(name); err == nil && t == dns.TypePTR {
		return r
	}
	return name
}

func explanation(name string, t uint16, scope clientScope, r *zoneResult) Explanation {
	e := Explanation{
		Name: name, Type: dns.TypeToString[t], Scope: scope.String(), Steps: r.Steps,
		Outcome: outcomeLocal.String(), Rcode: dns.RcodeToString[r.Rcode],
		Answer: texts(r.Answer), Extra: texts(r.Extra), Held: len(r.Waiting) > 0,
	}
	switch {
	case r.Forward:
		e.Outcome, e.Rcode = outcomeForwarded.String(), ""
	case r.Negative():
		e.Outcome = outcomeNegative.String()
	}
	return e
}

func texts(rrs []dns.RR) []string {
	out := make([]string, 0, len(rrs))
	for _, rr := range rrs {
		out = append(out, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	return out
}

// step records a decision if the query asks for them.
func (a *answering) step(rule, format string, args ...any) {
	if a.Trace {
		a.Steps = append(a.Steps, Step{Rule: rule, Text: fmt.Sprintf(format, args...)})
	}
}

// describe records what the name stands for, if the query asks for steps.
func (a *answering) describe(v *verdict) {
	if !a.Trace {
		return
	}
	a.step("scope", "%s", a.Scope)
	if v.view != nil && v.form != formAddress {
		a.step("name", "%q in network %s", v.rel, v.view.Network())
	}
	switch {
	case v.form != formNone:
		a.describeTarget(v.target)
	case v.denied != notDenied:
		a.step("nxdomain", "%s", v.denied.why(a.name, v))
	default:
		a.step("forward", "%s", notOurs(a.name))
	}
}

// notOurs says for people why a name is forwarded.
func notOurs(name string) string {
	p, ok := reverseAddr(name)
	switch {
	case !ok:
		return "not a name of ours"
	case p.IsSingleIP():
		return p.Addr().String() + " is not an address of ours"
	}
	return "not in a pool of this node"
}

// why says for people why a name does not exist.
func (d denial) why(name string, v *verdict) string {
	first, _, _ := strings.Cut(name, ".")
	switch d {
	case deniedUnknown:
		return "no such name in network " + v.view.Network()
	case deniedNetwork:
		_, network := cutLast(strings.TrimSuffix(name[:v.domainAt], "."))
		return "network " + network + " is not in scope"
	case deniedAddress:
		p, _ := reverseAddr(name)
		return p.Addr().String() + " is in a pool of this node or a task's, and has no name in scope"
	case deniedSingleLabel:
		return "single-label names are never forwarded"
	case deniedSuffix:
		_, last := cutLast(name)
		return "no such name in network " + last + ", or the network is not in scope"
	case deniedPrefix:
		return first + ".<service> is never forwarded"
	case deniedSRV:
		return "_port._proto.<service> is never forwarded"
	}
	return "no such task of service " + first
}

// describeTarget records what was found.
func (a *answering) describeTarget(t target) {
	switch t.form {
	case formEmpty:
		a.step("name", "an empty non-terminal: names exist below it")
	case formApex:
		a.step("name", "the zone of network %s", t.view.Network())
	case formDomain:
		a.step("name", "the zone %s", a.Domain)
	case formPool:
		a.step("name", "part of a pool")
	case formNameServer:
		a.step("name", "this name server")
	case formLocalhost:
		a.step("name", "localhost (RFC 6761)")
	case formAddress:
		p, _ := reverseAddr(a.name)
		a.step("name", "%s is %s", p.Addr(), a.nameOfAddress(&t))
	case formEndpoints:
		for _, e := range t.endpoints {
			a.step("name", "task %s on node %s", e.ID(), e.Owner())
		}
	default:
		a.describeService(t)
	}
}

func (a *answering) describeService(t target) {
	s := t.service
	if t.alias != "" {
		a.step("alias", "%s is an alias of service %s", t.alias, s.Name)
	}
	parts := []string{"mode " + s.Mode.String()}
	for _, vip := range []fmt.Stringer{s.VIP4, s.VIP6} {
		if text := vip.String(); text != "invalid IP" {
			parts = append(parts, "VIP "+text)
		}
	}
	for c := range state.Hidden {
		if n := s.Count[c]; n > 0 || c == state.Serving {
			parts = append(parts, fmt.Sprintf("%d %s %s", n, plural("task", int(n)), c))
		}
	}
	if a.Notes != nil {
		parts = append(parts, a.Notes(s.Network, s.Name)...)
	}
	a.step("service", "service %s: %s", s.Name, strings.Join(parts, ", "))
	a.step("form", "%s", a.why(t))
	if s.Conflict != "" {
		a.step("conflict", "%s", s.Conflict)
	}
}

// why says what a service's name answers with.
func (a *answering) why(t target) string {
	s := t.service
	switch {
	case t.form == formTasks:
		return "tasks.<service> answers with the tasks"
	case t.form == formNearest:
		return "nearest.<service> answers with the tasks, nearest node first"
	case t.form == formSRV:
		return "SRV answers with one record per task and port"
	case a.vipAnswers(s):
		return "the name answers with the VIP"
	case s.Mode == state.ModeDNSRR:
		return "dnsrr: the name answers with the tasks"
	case !s.VIP4.IsValid() && !s.VIP6.IsValid():
		return "the service has no VIP, so the name answers with the tasks"
	}
	if a.WhyNoVIPs != nil {
		if why := a.WhyNoVIPs(s.Network); why != "" {
			return "this node does not serve the network's VIPs (" + why + "), so the name answers with the tasks"
		}
	}
	return "this node has no working load balancer, so the name answers with the tasks"
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
