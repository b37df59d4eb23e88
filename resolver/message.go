package resolver

import (
	"github.com/miekg/dns"
)

// refuse returns the reply to a query that is not a plain question for us, or
// nil if it is one. It reads only q.
func refuse(q *dns.Msg) *dns.Msg {
	switch rcode := vet(q); rcode {
	case dns.RcodeSuccess:
		return nil
	default:
		m := newReply(q)
		m.Rcode = rcode
		return m
	}
}

// vet returns the error code that q deserves (RFC 1035, RFC 6891), or success.
func vet(q *dns.Msg) int {
	if q.Opcode != dns.OpcodeQuery {
		return dns.RcodeNotImplemented
	}
	if len(q.Question) != 1 || len(q.Answer) != 0 { // a bare header with QDCOUNT 1 gets here without a question
		return dns.RcodeFormatError
	}
	opts := 0
	for _, rr := range q.Extra {
		if o, ok := rr.(*dns.OPT); ok {
			if opts++; opts > 1 || o.Hdr.Name != "." {
				return dns.RcodeFormatError
			}
		}
	}
	if o := q.IsEdns0(); o != nil && o.Version() != 0 {
		return dns.RcodeBadVers
	}
	switch t := q.Question[0].Qtype; {
	case t == dns.TypeOPT || t == dns.TypeNone:
		return dns.RcodeFormatError
	case q.Question[0].Qclass != dns.ClassINET:
		return dns.RcodeRefused
	case t >= 128 && t < dns.TypeANY: // transfers and other meta types
		return dns.RcodeRefused
	}
	return dns.RcodeSuccess
}

// newReply starts a reply to q: id, question in its case, RD, CD, and RA as we
// do recurse. It tolerates a q without a question.
func newReply(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.Id, m.Opcode, m.Response = q.Id, q.Opcode, true
	m.RecursionDesired, m.CheckingDisabled, m.RecursionAvailable = q.RecursionDesired, q.CheckingDisabled, true
	m.Question = append(m.Question, q.Question[:min(1, len(q.Question))]...)
	return m
}

// localReply makes the reply to q from an answer of ours.
func localReply(q *dns.Msg, r *Result) *dns.Msg {
	m := newReply(q)
	m.Authoritative, m.Rcode = true, r.Rcode
	m.Answer, m.Ns, m.Extra = r.Answer, r.Ns, r.Extra
	m.Truncated = r.More
	return m
}

// failure makes a SERVFAIL without records.
func failure(q *dns.Msg) *dns.Msg {
	m := newReply(q)
	m.Rcode = dns.RcodeServerFailure
	return m
}

// finish makes m fit for q's client and packs it: EDNS only if asked, at most
// maxUDP bytes over UDP, TC with as many answers as fit (some clients use the
// part, and an empty truncated reply is a failure to them). m is used up.
func finish(q, m *dns.Msg, udp bool, maxUDP int) ([]byte, error) {
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
	}
	if o := q.IsEdns0(); o != nil {
		if udp {
			size = min(max(int(o.UDPSize()), dns.MinMsgSize), maxUDP)
		}
		setOPT(m, o, maxUDP)
	}
	fit(m, size)
	if !udp {
		m.Truncated = false // there is nothing larger to ask for
	}
	return m.Pack()
}

// setOPT adds the OPT of a reply (RFC 6891): no options, DO as asked (RFC 3225).
func setOPT(m *dns.Msg, asked *dns.OPT, maxUDP int) {
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(uint16(maxUDP))
	if asked.Do() {
		opt.SetDo()
	}
	m.Extra = append(m.Extra, opt)
}

// fit shrinks m to size. Additional records go first, without TC (RFC 2181 §9).
func fit(m *dns.Msg, size int) {
	m.Compress = true
	if m.Len() <= size {
		return
	}
	extra := m.Extra[:0:0]
	for _, rr := range m.Extra {
		if _, ok := rr.(*dns.OPT); ok {
			extra = append(extra, rr)
		}
	}
	m.Extra = extra
	if m.Len() > size {
		cut := m.Truncated
		m.Truncate(size)
		m.Truncated = m.Truncated || cut
		m.Compress = true
	}
}
