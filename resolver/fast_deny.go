package resolver

// This file owns NXDOMAIN in the receive buffer: nothing is packed for names that
// do not exist, so that asking for many of them takes no memory.

import (
	"bytes"
	"encoding/binary"

	"github.com/miekg/dns"
)

// soaTemplate is what is the same in the SOA of all negative answers.
type soaTemplate struct {
	fixed  [10]byte // type, class, TTL, and room for the length
	mname  []byte   // in wire form, without the domain
	rname  []byte   // the same
	domain []byte   // in wire form
	times  []byte   // serial, refresh, retry, expire, minimum; nil: the template is of no use
}

// newSOATemplate takes the zone's SOA apart.
func newSOATemplate(z *zone) (t soaTemplate) {
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

// deny writes NXDOMAIN with the SOA of the zone and returns the reply's length, or
// 0 if there is no room for it. Then buf is unchanged.
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
	domain := 12 + v.domainAt
	if v.domainAt < 0 { // the domain is not in the question: spell it out
		domain = at
		at += copy(buf[at:], t.domain)
	} else {
		at += putPointer(buf[at:], domain)
	}
	at += copy(buf[at:], t.rname)
	at += putPointer(buf[at:], domain)
	at += copy(buf[at:], t.times)
	binary.BigEndian.PutUint16(buf[data-2:], uint16(at-data))
	f.opt(q, buf[at:])
	if q.edns {
		at += optLen
	}
	f.counts.add(q.kind, true)
	return at
}

// putPointer writes a compressed name (RFC 1035 §4.1.4).
func putPointer(dst []byte, offset int) int {
	binary.BigEndian.PutUint16(dst, 0xc000|uint16(offset))
	return 2
}
