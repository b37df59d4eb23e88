//go:build !race

package resolver

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// Servers that misbehave in one way each, as real ones do.
func faults() map[string]replyFunc {
	const ms = time.Millisecond
	aaaa := func(code int) replyFunc { // an answer to A, something else to AAAA
		return func(m *dns.Msg, tcp bool) (time.Duration, *dns.Msg) {
			if m.Question[0].Qtype == dns.TypeA {
				return address(ms, "1.1.1.1")(m, tcp)
			}
			return ms, new(dns.Msg).SetRcode(m, code)
		}
	}
	many := func(n int) []dns.RR {
		var rrs []dns.RR
		for i := range n {
			rrs = append(rrs, &dns.A{
				Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 20},
				A:   []byte{192, 0, 2, byte(i)},
			})
		}
		return rrs
	}
	truncated := func(partial int, overTCP replyFunc) replyFunc {
		return func(m *dns.Msg, tcp bool) (time.Duration, *dns.Msg) {
			if tcp {
				return overTCP(m, tcp)
			}
			r := new(dns.Msg).SetReply(m)
			r.Truncated, r.Answer = true, many(partial)
			return ms, r
		}
	}
	sixty := func(m *dns.Msg, _ bool) (time.Duration, *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		r.Answer = many(60)
		return ms, r
	}
	return map[string]replyFunc{
		"AAAA is NODATA":                aaaa(dns.RcodeSuccess),
		"AAAA is NXDOMAIN":              aaaa(dns.RcodeNameError),
		"AAAA is SERVFAIL":              aaaa(dns.RcodeServerFailure),
		"AAAA is REFUSED":               aaaa(dns.RcodeRefused),
		"AAAA is NOTIMP":                aaaa(dns.RcodeNotImplemented),
		"everything is lost":            dead(time.Hour),
		"connection refused":            dead(0),
		"every second packet is lost":   everySecond(address(ms, "1.1.1.1")),
		"slow":                          address(1500*ms, "1.1.1.1"),
		"slower than a try":             address(2100*ms, "1.1.1.1"),
		"FORMERR to everything":         rcode(ms, dns.RcodeFormatError),
		"REFUSED to everything":         rcode(ms, dns.RcodeRefused),
		"SERVFAIL to everything":        rcode(ms, dns.RcodeServerFailure),
		"TC with a part, TCP works":     truncated(29, sixty),
		"TC without answers, TCP works": truncated(0, sixty),
		"TC with a part, TCP closes":    truncated(29, dead(ms)),
		"TC with a part, TCP hangs":     truncated(29, dead(time.Hour)),
		"TC without answers, TCP hangs": truncated(0, dead(time.Hour)),
		"NOERROR, nothing, not recursive": func(m *dns.Msg, _ bool) (time.Duration, *dns.Msg) {
			return ms,
				new(dns.Msg).SetReply(m)
		},
		"an answer without a question": rcodeBare(dns.RcodeServerFailure),
		"an OPT nobody asked for in FORMERR": func(m *dns.Msg, _ bool) (time.Duration, *dns.Msg) {
			return ms, new(dns.Msg).SetRcode(m, dns.RcodeFormatError).SetEdns0(4096, false)
		},
	}
}

func rcodeBare(code int) replyFunc {
	return func(m *dns.Msg, _ bool) (time.Duration, *dns.Msg) {
		r := new(dns.Msg).SetRcode(m, code)
		r.Question = nil
		return time.Millisecond, r
	}
}

// R7.2: whatever one upstream does, no question waits longer than one try of it;
// with a second one that works, no longer than the hedge, and it is answered.
func TestFaultyUpstreams(t *testing.T) {
	for name, bad := range faults() {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			t.Run(name+"/"+dns.TypeToString[qtype], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					alone := forwarding(t, nil, bad)
					start := time.Now()
					r, _ := alone.askType(me, "example.com.", qtype)
					if d := time.Since(start); r == nil || d > alone.cfg.TryTimeout {
						t.Errorf("alone: %v after %s", r, d)
					}
					two := forwarding(t, nil, bad, address(10*time.Millisecond, "2.2.2.2"))
					start = time.Now()
					r, _ = two.askType(me, "example.com.", qtype)
					if d := time.Since(start); d > two.cfg.Hedge+10*time.Millisecond {
						t.Errorf("beside one that works: %s", d)
					}
					if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
						t.Errorf("beside one that works: %v", r)
					}
				})
			})
		}
	}
}

// R7.4: a part of an answer is passed on with TC when TCP does not work: some clients use it.
func TestTruncatedWithoutTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := forwarding(t, nil, faults()["TC with a part, TCP closes"])
		r, o := f.ask(me, "example.com.")
		if o != outcomeForwarded || !r.Truncated || len(r.Answer) != 29 {
			t.Errorf("%s: TC %v, %d answers", o, r.Truncated, len(r.Answer))
		}
	})
}

// R7.4: a reply that says only that there is more is no answer where nothing more
// comes: over TCP it would say that the name has no records.
func TestTruncatedToNothing(t *testing.T) {
	more := func(m *dns.Msg, _ bool) (time.Duration, *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		r.Truncated = true
		return time.Millisecond, r
	}
	for name, bad := range map[string]replyFunc{
		"over TCP, too": more,
		"TCP hangs":     faults()["TC without answers, TCP hangs"],
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := forwarding(t, nil, bad)
				if r, o := f.ask(me, "example.com."); !r.Truncated || r.Rcode != dns.RcodeSuccess {
					t.Errorf("over UDP: %s %v", o, r)
				}
				q := question{
					msg: query("example.com.", dns.TypeA), client: netip.AddrPortFrom(netip.MustParseAddr(me), 1),
					tcp: true,
				}
				if r, o := f.resolve(q); r.Rcode != dns.RcodeServerFailure || o != outcomeFailed {
					t.Errorf("over TCP: %s %v", o, r)
				}
				two := forwarding(t, nil, bad, address(10*time.Millisecond, "2.2.2.2"))
				if r, _ := two.ask(me, "example.com."); len(r.Answer) != 1 {
					t.Errorf("beside one that has the answer: %v", r)
				}
			})
		})
	}
}

// R7.3: whoever makes an upstream fail and be well in turns does not fill the log.
func TestFailingIsToldSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := forwarding(t, func(c *ForwardConfig) { c.CacheEntries = -1 },
			func(m *dns.Msg, tcp bool) (time.Duration, *dns.Msg) {
				if strings.HasPrefix(m.Question[0].Name, "bad") {
					return 0, nil
				}
				return address(0, "1.1.1.1")(m, tcp)
			})
		var log strings.Builder
		f.log = slog.New(slog.NewTextHandler(&log, nil))
		for i := range 100 {
			for _, name := range []string{"bad1", "bad2", "bad3", "good"} {
				f.ask(me, fmt.Sprintf("%s-%d.example.com.", name, i))
			}
			time.Sleep(100 * time.Millisecond) // virtual: 10 s in all
		}
		if n := strings.Count(log.String(), "is failing"); n < 1 || n > 2 {
			t.Errorf("%d lines in ten seconds", n)
		}
	})
}

// R7.1: names of a domain go to its own servers and nowhere else.
func TestUpstreamsByDomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := func(last byte) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, last}), 53)
		}
		f := forwarding(t, func(c *ForwardConfig) {
			c.CacheEntries = -1
			c.Domains = map[string][]netip.AddrPort{
				"corp.example": {server(2)}, "Deep.Corp.Example.": {server(3)},
				"10.in-addr.arpa": {server(4)},
			}
		}, address(0, "1.1.1.1"), dead(0), address(0, "3.3.3.3"), address(0, "4.4.4.4"))
		f.routes.Load().others.cfg.Upstreams = f.routes.Load().others.cfg.Upstreams[:1]
		for name, want := range map[string]string{
			"example.com.": "192.0.2.1 udp", "corp.example.": "192.0.2.2 udp", "a.CORP.example.": "192.0.2.2 udp",
			"a.b.deep.corp.example.": "192.0.2.3 udp", "xcorp.example.": "192.0.2.1 udp",
			"1.2.3.10.in-addr.arpa.": "192.0.2.4 udp",
		} {
			before := f.net.count()
			f.ask(me, name)
			for _, asked := range f.net.asked[before:] {
				if asked != want {
					t.Errorf("%s: asked %s, want %s", name, asked, want)
				}
			}
			if f.net.count() == before {
				t.Errorf("%s: nobody was asked", name)
			}
		}
	})
}

// R7.8: an upstream that sends our questions back is found, left out, and taken back.
func TestLoopIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := forwarding(t, func(c *ForwardConfig) { c.CacheEntries = -1 }, dead(time.Hour),
			address(time.Millisecond, "2.2.2.2"))
		looping := true
		f.net.back = func(server netip.AddrPort, m *dns.Msg) bool {
			if !looping || server.Addr() != netip.MustParseAddr("192.0.2.1") {
				return false
			}
			r, o := f.resolve(question{msg: m.Copy(), client: server})
			if o != outcomeRefused || r.Rcode != dns.RcodeNameError {
				t.Errorf("the probe that came back: %s %v", o, r)
			}
			return true
		}
		f.ask(me, "example.com.") // starts the probes
		synctest.Wait()
		state := func(i int) UpstreamState { return f.routes.Load().others.status(time.Now())[i].State }
		if state(0) != UpstreamLooping || state(1) != UpstreamUp {
			t.Fatalf("%+v", f.routes.Load().others.status(time.Now()))
		}
		start, before := time.Now(), f.net.count()
		f.ask(me, "example.com.")
		if d := time.Since(start); d != time.Millisecond || f.net.asked[before] != "192.0.2.2 udp" {
			t.Errorf("after %s, asked %v", d, f.net.asked[before:])
		}
		looping = false
		time.Sleep(probeLooping)
		f.ask(me, "example.com.")
		synctest.Wait()
		if state(0) == UpstreamLooping {
			t.Error("the upstream does not loop any more and is still left out")
		}
		if n := len(f.loops.pending); n != 0 {
			t.Errorf("%d probes are remembered", n)
		}
		names := map[string]bool{}
		for _, p := range f.net.probes {
			names[p] = true
		}
		if len(names) != len(f.net.probes) {
			t.Errorf("a probe was used twice: %v", f.net.probes)
		}
	})
}
