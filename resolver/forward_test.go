package resolver

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// upstreamServer answers every question on 127.0.0.1, UDP and TCP: one address,
// or 100 for big.example.com.
func upstreamServer(tb testing.TB) (netip.AddrPort, *atomic.Int64) {
	tb.Helper()
	p, l, err := listenBoth(loopback)
	if err != nil {
		tb.Fatal(err)
	}
	var asked atomic.Int64
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if !isProbe(q.Question[0]) {
			asked.Add(1)
		}
		r := new(dns.Msg).SetReply(q)
		n := 1
		if strings.HasPrefix(q.Question[0].Name, "big.") {
			n = 100
		}
		for i := range n {
			r.Answer = append(r.Answer, &dns.A{
				A:   net.IPv4(192, 0, 2, byte(i)),
				Hdr: dns.RR_Header{Name: strings.ToLower(q.Question[0].Name), Rrtype: dns.TypeA, Class: 1, Ttl: 60},
			})
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			r.Truncate(1232)
		}
		w.WriteMsg(r)
	})
	for _, s := range []*dns.Server{{PacketConn: p, Handler: h}, {Listener: l, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		tb.Cleanup(func() { s.Shutdown() })
	}
	return addrPort(p.LocalAddr()), &asked
}

// isProbe reports whether a question is one that looks for loops.
func isProbe(q dns.Question) bool { return q.Qtype == dns.TypeTXT && len(q.Name) == 34 }

// R7 over sockets: forwarding, the cache, TCP for large answers, 0x20.
func TestForwardOverSockets(t *testing.T) {
	up, asked := upstreamServer(t)
	_, b := serve(t, standard(t).self, []string{"net1"},
		func(c *Config) { c.Forward = ForwardConfig{Upstreams: []netip.AddrPort{up}} })
	r := ask(t, b, "udp", query("wWw.Example.com.", dns.TypeA))
	if len(r.Answer) != 1 || r.Answer[0].Header().Name != "wWw.Example.com." || r.Authoritative || !r.RecursionAvailable ||
		r.IsEdns0() != nil {
		t.Error(r)
	}
	ask(t, b, "tcp", query("www.example.com.", dns.TypeA))
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if r := ask(t, b, "udp", query("big.example.com.", dns.TypeA)); !r.Truncated || len(r.Answer) == 0 {
		t.Error(r)
	}
	if r := ask(t, b, "tcp", query("big.example.com.", dns.TypeA)); r.Truncated || len(r.Answer) != 100 {
		t.Error(r)
	}
	before := asked.Load()
	for _, local := range []string{
		"nope.", "nope.net1.", "cache.net2.mesh.internal.", "77.0.1.10.in-addr.arpa.",
		"tasks.nope.",
	} {
		ask(t, b, "udp", query(local, dns.TypeA))
		ask(t, b, "udp", query(local, dns.TypeTXT))
	}
	if n := asked.Load(); n != before {
		t.Errorf("R3: %d local names leaked upstream", n-before)
	}
}

// R7.8: upstreams that are ourselves are not asked.
func TestLoopGuard(t *testing.T) {
	s, b := serve(t, standard(t).self, []string{"net1"})
	s.forward.routes.Load().others.cfg = ForwardConfig{Upstreams: []netip.AddrPort{b.Addr()}}
	if p := s.forward.routes.Load().others.plan(time.Now()); len(p) != 0 || s.met.get(countLoops) != 1 {
		t.Errorf("plan %v", p)
	}
	p, l, err := listenBoth(loopback)
	if err != nil {
		t.Fatal(err)
	}
	box, err := s.Listen(Listener{Packet: p, Stream: l})
	if err != nil {
		t.Fatal(err)
	}
	if own := *s.own.Load(); slices.Contains(own, box.Addr()) || !slices.Contains(own, b.Addr()) {
		t.Errorf("own addresses are %v: a sandbox's is not the host's", own)
	}
	local := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	for own, want := range map[string]bool{
		"127.0.0.1:53": false, "192.0.2.1:53": true, "0.0.0.0:53": true, "[::]:53": true, "0.0.0.0:54": false,
		"192.0.2.2:53": false,
	} {
		if got := isOwn(netip.MustParseAddrPort("192.0.2.1:53"), []netip.AddrPort{netip.MustParseAddrPort(own)},
			local); got != want {
			t.Errorf("listener %s: %v", own, got)
		}
	}
	if isOwn(netip.MustParseAddrPort("9.9.9.9:53"), []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}, local) {
		t.Error("a listener on every address hides a remote upstream")
	}
}

// R7.8: an upstream that forwards to us in turn is found by itself, as soon as
// there is a listener, and a client gets an answer instead of a storm.
func TestLoopOverSockets(t *testing.T) {
	p, l, err := listenBoth(loopback)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	var back atomic.Pointer[Bound]
	up := &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		c := dns.Client{Timeout: 3 * time.Second}
		if r, _, err := c.Exchange(q, back.Load().Addr().String()); err == nil {
			w.WriteMsg(r)
		}
	})}
	var log bytes.Buffer
	s, b := serve(t, standard(t).self, []string{"net1"}, func(c *Config) {
		c.Forward = ForwardConfig{Upstreams: []netip.AddrPort{addrPort(p.LocalAddr())}}
		c.Log = quiet(&log)
	})
	back.Store(b)
	go up.ActivateAndServe()
	t.Cleanup(func() { up.Shutdown() })
	waitFor(t, func() bool { return s.Upstreams()[0].State == UpstreamLooping })
	if r := ask(t, b, "udp", query("example.com.", dns.TypeA)); r.Rcode != dns.RcodeServerFailure {
		t.Error(r)
	}
	if n := s.met.get(countLoops); n == 0 {
		t.Error("no loop is counted")
	}
}

// A reply that cannot be read is a failure at once, not a timeout; one that is
// cut anywhere is truncated; a stranger's is ignored.
func TestParseReply(t *testing.T) {
	m := query("example.com.", dns.TypeA)
	full := new(dns.Msg).SetReply(m)
	for range 20 {
		full.Answer = append(full.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: "example.com.", Rrtype: 1, Class: 1, Ttl: 1},
			A:   net.IPv4(1, 2, 3, 4),
		})
	}
	packed, err := full.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := parseReply(m, packed); err != nil || len(r.Answer) != 20 {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := parseReply(m, packed[:200]); r != nil || err == nil {
		t.Errorf("cut without TC: %v, %v", r, err)
	}
	packed[2] |= 0x02
	if r, err := parseReply(m, packed[:200]); err != nil || !r.Truncated || len(r.Answer) != 0 {
		t.Errorf("cut with TC: %v, %v", r, err)
	}
	packed[0]++
	if r, err := parseReply(m, packed); r != nil || err != nil {
		t.Errorf("another id: %v, %v", r, err)
	}
	if r, err := parseReply(m, packed[:11]); r != nil || err != nil {
		t.Errorf("no header: %v, %v", r, err)
	}
}

// R7.1: resolv.conf is read again when it changes; what cannot be read changes nothing.
func TestResolvConfReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	s, _ := serve(t, standard(t).self, nil, func(c *Config) { c.Forward = ForwardConfig{ResolvConf: path} })
	now := time.Now()
	plan := func(text string) (out []string) {
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			os.Remove(path)
		}
		now = now.Add(2 * reloadEvery)
		for _, u := range s.forward.routes.Load().others.plan(now) {
			out = append(out, u.addr.String())
		}
		return out
	}
	if p := plan(""); p != nil {
		t.Errorf("no file: %v", p)
	}
	if p := plan("nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch x\noptions ndots:2\n"); len(p) != 4 ||
		p[1] != "[2001:db8::1]:53" {
		t.Errorf("%v", p)
	}
	if p := plan("nameserver 192.0.2.2\n# longer\n"); len(p) != 2 || p[0] != "192.0.2.2:53" {
		t.Errorf("%v", p)
	}
	if p := plan(""); len(p) != 2 {
		t.Errorf("the file vanished: %v", p)
	}
}

// RFC 5452: neither the ids nor the ports of what is asked can be guessed.
func TestRandomIdsAndPorts(t *testing.T) {
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	type asked struct {
		id   uint16
		port int
	}
	got := make(chan asked, 64)
	up := &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		got <- asked{q.Id, w.RemoteAddr().(*net.UDPAddr).Port}
		w.WriteMsg(new(dns.Msg).SetReply(q))
	})}
	go up.ActivateAndServe()
	defer up.Shutdown()
	ids, ports := map[uint16]bool{}, map[int]bool{}
	var risen, last int
	const n = 32
	for range n {
		m := query("example.com.", dns.TypeA)
		m.Id = 7
		if _, err := exchange(t.Context(), addrPort(p.LocalAddr()), false, m); err != nil {
			t.Fatal(err)
		}
		a := <-got
		ids[a.id], ports[a.port] = true, true
		if a.port > last {
			risen++
		}
		last = a.port
	}
	// Of 65536 ids and 28232 ports, 32 are all different but for bad luck.
	if len(ids) < n-2 || len(ports) < n-4 || risen > n-4 {
		t.Errorf("%d ids, %d ports of %d questions, %d times a higher port", len(ids), len(ports), n, risen)
	}
}

// The reply must be to our question (RFC 5452).
func TestAnswers(t *testing.T) {
	m := query("example.com.", dns.TypeA)
	good := new(dns.Msg).SetReply(m)
	other := new(dns.Msg).SetReply(query("example.org.", dns.TypeA))
	other.Id = m.Id
	wrongID := good.Copy()
	wrongID.Id++
	bare := new(dns.Msg).SetRcode(m, dns.RcodeFormatError)
	bare.Question = nil
	for i, c := range []struct {
		r    *dns.Msg
		want bool
	}{{good, true}, {other, false}, {wrongID, false}, {m, false}, {bare, true}} {
		if isReplyTo(m, c.r) != c.want {
			t.Errorf("%d: %v", i, c.r)
		}
	}
}
