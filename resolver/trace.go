package resolver

// This file owns the explanation of a question with its way through the server.

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Trace answers a question as Explain does and adds what became of it on the
// way: which path answers it, what the cache holds, which servers a name of others
// is sent to, and how each try ends. It asks the upstreams even if the cache has
// an answer, and changes nothing. It ends when ctx does.
func (s *Server) Trace(ctx context.Context, network, name, qtype string) (Explanation, error) {
	e, err := s.zone.Explain(network, name, qtype)
	if err != nil {
		return e, err
	}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(e.Name), dns.StringToType[e.Type])
	if e.Outcome == outcomeForwarded.String() {
		s.traceForward(ctx, q, &e)
		return e, nil
	}
	e.add("path", "%s", s.path(network, q))
	return e, nil
}

func (e *Explanation) add(rule, format string, args ...any) {
	e.Steps = append(e.Steps, Step{Rule: rule, Text: fmt.Sprintf(format, args...)})
}

// path says which of the two ways answers q over UDP.
func (s *Server) path(network string, q *dns.Msg) string {
	switch {
	case s.cfg.DisableFast:
		return "the ordinary path: the fast path is switched off"
	case network == "":
		return "the ordinary path: host scope"
	}
	b := &Bound{server: s, vips: s.cfg.VIPsUsable}
	b.SetNetworks([]string{network})
	packed, err := q.SetEdns0(uint16(s.cfg.MaxUDPPayload), false).Pack()
	if err != nil {
		return err.Error()
	}
	buf := make([]byte, 4096)
	if newFastPath(b).answer(buf, copy(buf, packed), netip.IPv4Unspecified()) > 0 {
		return "the fast path: answered from packed records in the receive buffer"
	}
	return "the ordinary path: the question or its answer is not of the fast path's kinds"
}

// traceForward sends q to its upstreams and adds what they reply.
func (s *Server) traceForward(ctx context.Context, q *dns.Msg, e *Explanation) {
	f := s.forward
	if f.cfg.Disabled {
		e.add("forward", "forwarding is disabled: the answer is SERVFAIL")
		e.Rcode = dns.RcodeToString[dns.RcodeServerFailure]
		return
	}
	key := keyOf(q)
	pool := f.routes.Load().serversFor(fold(key.name))
	e.add("upstreams", "%s", pool.describe())
	switch have := f.cache.get(key, time.Now()); {
	case have.msg == nil:
		e.add("cache", "no answer")
	case have.fresh:
		e.add("cache", "a fresh answer, %s old: clients get it without asking", have.age.Truncate(time.Millisecond))
	default:
		e.add("cache", "an answer of %s ago, expired: clients get it if no upstream answers soon (RFC 8767)",
			have.age.Truncate(time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	var tried []attempt
	r, err := f.ask(ctx, pool, upstreamQuery(q), &tried)
	for _, a := range tried {
		e.add("upstream", "%s: %s after %s", a.from, a.result(), a.took.Round(time.Microsecond))
	}
	if err != nil {
		e.add("failed", "%v", err)
		e.Rcode, e.Outcome = dns.RcodeToString[dns.RcodeServerFailure], outcomeFailed.String()
		return
	}
	r = upstreamReply(q, r, 0, 0)
	e.Rcode, e.Answer = dns.RcodeToString[r.Rcode], texts(r.Answer)
}

// result says for people how a try ended.
func (a attempt) result() string {
	if a.err != nil {
		return a.err.Error()
	}
	text := fmt.Sprintf("%s, %d %s", dns.RcodeToString[a.reply.Rcode], len(a.reply.Answer),
		plural("answer", len(a.reply.Answer)))
	if a.reply.Truncated {
		text += ", truncated"
	}
	return text
}

// describe lists the upstreams for people.
func (p *upstreams) describe() string {
	status := p.status(time.Now())
	if len(status) == 0 {
		return "none is known: the answer is SERVFAIL"
	}
	var list []string
	for _, u := range status {
		list = append(list, u.Addr.String()+" ("+string(u.State)+")")
	}
	if p.domain != "" {
		return "of the domain " + p.domain + ": " + strings.Join(list, ", ")
	}
	return strings.Join(list, ", ")
}
