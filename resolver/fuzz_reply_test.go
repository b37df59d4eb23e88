package resolver

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// FuzzUpstreamReply lets an upstream reply with anything: the client gets a
// message that packs, fits, parses and answers its question, or none.
func FuzzUpstreamReply(f *testing.F) {
	ask := query("www.Example.com.", dns.TypeA)
	seed := func(change func(*dns.Msg)) {
		m := new(dns.Msg).SetReply(ask)
		change(m)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(0))
		f.Add(b, uint8(7))
		f.Add(b[:len(b)/2], uint8(1))
	}
	for _, text := range []string{
		"www.example.com. 20 IN A 192.0.2.1", "www.example.com. 4294967295 IN CNAME a.b.c.",
		"www.example.com. 0 IN HTTPS 1 . alpn=h2 ipv4hint=1.2.3.4",
		"www.example.com. 20 IN RRSIG A 8 2 20 20300101000000 20200101000000 1 example.com. AAAA",
		"www.example.com. 20 IN TXT \"a\" \"b\"",
		"www.example.com. 20 IN NSEC a.example.com. A RRSIG", "www.example.com. 20 IN TYPE65280 \\# 3 010203",
	} {
		seed(func(m *dns.Msg) { m.Answer = append(m.Answer, rrOf(f, text)) })
	}
	seed(func(m *dns.Msg) {
		m.Rcode, m.Ns = dns.RcodeNameError, []dns.RR{rrOf(f, "com. 60 IN SOA a. b. 1 2 3 4 60")}
	})
	seed(func(m *dns.Msg) { m.SetEdns0(4096, true).Rcode = dns.RcodeBadVers })
	seed(func(m *dns.Msg) { m.Truncated = true })
	seed(func(m *dns.Msg) { m.Question = nil; m.Rcode = dns.RcodeServerFailure })
	f.Add([]byte{}, uint8(0))

	f.Fuzz(func(t *testing.T, b []byte, how uint8) {
		q := query("www.Example.com.", dns.TypeA)
		tcp, edns := how&1 != 0, how&2 != 0
		if edns {
			q.SetEdns0(1232, how&4 != 0)
		}
		fw := newForwarder(t.Context(), replying(t, b), slog.New(slog.DiscardHandler), newMetrics(),
			func() []netip.AddrPort { return nil })
		r, _ := fw.resolve(question{msg: q, client: netip.AddrPortFrom(hostAddr, 1), tcp: tcp})
		checkForwarded(t, q, r, tcp)
		r, _ = fw.resolve(question{msg: q, client: netip.AddrPortFrom(hostAddr, 1), tcp: tcp}) // perhaps from the cache
		checkForwarded(t, q, r, tcp)
	})
}

// replying is the configuration of a forwarder whose one upstream replies with b.
func replying(t *testing.T, b []byte) ForwardConfig {
	cfg, err := ForwardConfig{
		Upstreams: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")},
		Exchange: func(_ context.Context, _ netip.AddrPort, _ bool, m *dns.Msg) (*dns.Msg, error) {
			p := append([]byte{}, b...)
			m.Id = 0x1234
			if len(p) > 2 {
				p[0], p[1] = 0x12, 0x34
			}
			if r, err := parseReply(m, p); r != nil || err != nil {
				return r, err
			}
			return nil, errors.New("no reply")
		},
	}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func checkForwarded(t *testing.T, q, r *dns.Msg, tcp bool) {
	if r == nil {
		t.Fatal("no reply")
	}
	b, err := finish(q, r, !tcp, 1232)
	if err != nil {
		t.Fatalf("does not pack: %v\n%v", err, r)
	}
	limit := 512
	switch {
	case tcp:
		limit = dns.MaxMsgSize
	case q.IsEdns0() != nil:
		limit = 1232
	}
	var got dns.Msg
	if err := got.Unpack(b); err != nil || len(b) > limit {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if got.Id != q.Id || !got.Response || !got.RecursionAvailable || len(got.Question) != 1 ||
		got.Question[0] != q.Question[0] {
		t.Fatalf("%v", &got)
	}
	if (got.IsEdns0() != nil) != (q.IsEdns0() != nil) {
		t.Fatalf("OPT in %v", &got)
	}
}

func rrOf(tb testing.TB, text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		tb.Fatal(text, err)
	}
	return rr
}
