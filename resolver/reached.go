package resolver

// This file owns which records of an upstream's answer belong to the question.

import "github.com/miekg/dns"

// Aliases are followed to maxReached names, far more than any server follows; an
// answer whose records are not in order is gone through maxPasses times for them.
const (
	maxReached = 64
	maxPasses  = 8
)

// reached are the owners of records that belong to an answer.
type reached struct {
	names  map[string]bool // the question's name, and where aliases lead from it
	dnames map[string]bool // the owners of DNAME records on the way
}

// dropUnreached takes the records out of an upstream's answer to which neither
// the question's name nor an alias (CNAME, DNAME) on the way from it leads, and
// returns their number. Signatures of records that stay are kept. A reply without
// any record left becomes a failure, since it would say that the name has none.
func dropUnreached(m *dns.Msg, question string) int {
	if len(m.Answer) == 0 {
		return 0
	}
	r := reached{names: map[string]bool{dns.CanonicalName(question): true}, dnames: map[string]bool{}}
	for i := 0; i < maxPasses && r.follow(m.Answer); i++ {
	}
	kept := make([]dns.RR, 0, len(m.Answer))
	for _, rr := range m.Answer {
		if r.has(rr) {
			kept = append(kept, rr)
		}
	}
	dropped := len(m.Answer) - len(kept)
	if m.Answer = kept; len(kept) == 0 {
		m.Answer, m.Ns, m.Extra = nil, nil, nil
		m.Rcode = dns.RcodeServerFailure
	}
	return dropped
}

// follow adds where the aliases among the records lead, and reports whether that
// was news.
func (r *reached) follow(rrs []dns.RR) (more bool) {
	add := func(name string) {
		if name = dns.CanonicalName(name); !r.names[name] && len(r.names) < maxReached {
			r.names[name], more = true, true
		}
	}
	for _, rr := range rrs {
		owner := dns.CanonicalName(rr.Header().Name)
		switch rr := rr.(type) {
		case *dns.CNAME:
			if r.names[owner] {
				add(rr.Target)
			}
		case *dns.DNAME:
			for _, name := range r.below(owner) {
				r.dnames[owner] = true
				add(name + rr.Target)
			}
		}
	}
	return more
}

// below returns what the names that were reached have before an owner above them.
func (r *reached) below(owner string) (before []string) {
	if r.dnames[owner] || owner == "." {
		return nil // followed already, or of the root, which would be above every name
	}
	for name := range r.names {
		if name != owner && dns.IsSubDomain(owner, name) {
			before = append(before, name[:len(name)-len(owner)])
		}
	}
	return before
}

// has reports whether a record belongs to the answer.
func (r *reached) has(rr dns.RR) bool {
	owner := dns.CanonicalName(rr.Header().Name)
	if r.names[owner] {
		return true
	}
	t := rr.Header().Rrtype
	if s, ok := rr.(*dns.RRSIG); ok {
		t = s.TypeCovered
	}
	return t == dns.TypeDNAME && r.dnames[owner]
}
