//go:build linux

package dnsclients

// This file owns the upstream that misbehaves.

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"meshd/test/rig"
)

// upstreamPort is where the upstream listens on the host's address.
const upstreamPort = 5301

// startUpstream starts the server that meshd forwards to. The first label of a
// name under fault.example. says what it does wrong.
func startUpstream(t *testing.T, h *rig.Host) netip.AddrPort {
	t.Helper()
	at := netip.AddrPortFrom(h.Addr, upstreamPort)
	p, err := h.ListenPacket(t.Context(), "udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	l, err := h.Listen(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{
		{PacketConn: p, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { answer(w, q, false) })},
		{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { answer(w, q, true) })},
	} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.ShutdownContext(context.WithoutCancel(t.Context())) })
	}
	return at
}

func answer(w dns.ResponseWriter, q *dns.Msg, tcp bool) {
	name := strings.ToLower(q.Question[0].Name)
	fault, isFault := strings.CutSuffix(name, ".fault.example.")
	r := new(dns.Msg).SetReply(q)
	r.RecursionAvailable = true
	if q.IsEdns0() != nil {
		r.SetEdns0(1232, false)
	}
	switch {
	case strings.HasSuffix(name, ".refused.example."):
		r.Rcode = dns.RcodeRefused
	case !isFault:
		r.Rcode, r.Ns = dns.RcodeNameError, []dns.RR{soa("example.")}
	default:
		if misbehave(r, q, fault, tcp); r.Question == nil {
			if tcp {
				_ = w.Close()
			}
			return // lost
		}
	}
	if !tcp {
		r.Truncate(1232)
	}
	_ = w.WriteMsg(r)
}

// misbehave fills r as the fault says; a reply without a question is not sent.
func misbehave(r, q *dns.Msg, fault string, tcp bool) {
	aaaa := q.Question[0].Qtype == dns.TypeAAAA
	if !aaaa {
		r.Answer = addresses(q, 1)
	}
	rcode, isRcode := dns.StringToRcode[strings.ToUpper(strings.TrimPrefix(fault, "aaaa-"))]
	switch {
	case isRcode && aaaa:
		r.Rcode = rcode
	case fault == "drop", fault == "aaaa-drop" && aaaa:
		r.Question = nil
	case fault == "edns-formerr" && q.IsEdns0() != nil:
		r.Rcode, r.Answer = dns.RcodeFormatError, nil
	case fault == "lame":
		r.RecursionAvailable = false
	case fault == "opt" && q.IsEdns0() == nil:
		r.SetEdns0(4096, false)
	case aaaa:
	case strings.HasPrefix(fault, "tc-"):
		truncate(r, q, strings.TrimPrefix(fault, "tc-"), tcp)
	}
}

// truncate makes the reply one of sixty addresses that is larger than a datagram.
func truncate(r, q *dns.Msg, how string, tcp bool) {
	switch {
	case tcp && how == "partial-closes":
		r.Question = nil
	case tcp:
		r.Answer = addresses(q, 60)
	case how == "empty":
		r.Truncated, r.Answer = true, nil
	default:
		r.Truncated, r.Answer = true, addresses(q, 10)
	}
}

func addresses(q *dns.Msg, n int) (rrs []dns.RR) {
	for i := range n {
		rrs = append(rrs, &dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
			A:   net.IPv4(192, 0, 2, byte(i+1)),
		})
	}
	return rrs
}

func soa(zone string) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 60},
		Ns:  "ns." + zone, Mbox: "hostmaster." + zone, Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: 60,
	}
}
