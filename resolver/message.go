package resolver

// This file owns the reply as a message: what is refused before it is looked at,
// the header, EDNS and the size. It changes no query.

import (
	"github.com/miekg/dns"
)

// refusal returns the reply to a query that is not a plain question for us, or
// nil if it is one.
func refusal(q *dns.Msg) *dns.Msg {
	rcode := checkQuery(q)
	if rcode == dns.RcodeSuccess {
		return nil
	}
	m := newReply(q)
	m.Rcode = rcode
	return m
}

// checkQuery returns the error code with which q is refused (RFC 1035, RFC 6891),
// or success.
func checkQuery(q *dns.Msg) int {
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
// do recurse. q may be without a question.
func newReply(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.Id, m.Opcode, m.Response = q.Id, q.Opcode, true
	m.RecursionDesired, m.CheckingDisabled, m.RecursionAvailable = q.RecursionDesired, q.CheckingDisabled, true
	m.Question = append(m.Question, q.Question[:min(1, len(q.Question))]...)
	return m
}

// localReply makes the reply to q from an answer of ours.
func localReply(q *dns.Msg, r *zoneResult) *dns.Msg {
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

// finish completes the reply m for the client of q and packs it: EDNS only if q
// has it, over UDP at most maxUDP bytes, and TC with as many answers as there is
// room for (some clients use them, and an empty truncated reply is a failure to
// them). It changes m.
func finish(q, m *dns.Msg, udp bool, maxUDP int) ([]byte, error) {
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
	}
	if o := q.IsEdns0(); o != nil {
		if udp {
			size = clampEDNSSize(int(o.UDPSize()), maxUDP)
		}
		setOPT(m, o, maxUDP)
	}
	shrinkTo(m, size)
	if !udp {
		m.Truncated = false // there is nothing larger to ask for
	}
	return m.Pack()
}

// clampEDNSSize returns the largest reply, in bytes, to a client that says it
// takes so many: at least 512 (RFC 6891 §6.2.3), at most maxUDP.
func clampEDNSSize(asked, maxUDP int) int { return min(max(asked, dns.MinMsgSize), maxUDP) }

// setOPT adds the OPT of a reply (RFC 6891): no options, DO as asked (RFC 3225).
func setOPT(m *dns.Msg, asked *dns.OPT, maxUDP int) {
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(uint16(maxUDP))
	if asked.Do() {
		opt.SetDo()
	}
	m.Extra = append(m.Extra, opt)
}

// shrinkTo shrinks m to size bytes. Additional records go first, without TC (RFC
// 2181 §9).
func shrinkTo(m *dns.Msg, size int) {
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
		incomplete := m.Truncated // before it is packed
		m.Truncate(size)
		m.Truncated = m.Truncated || incomplete
		m.Compress = true
	}
}
