package resolver

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
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
		asked.Add(1)
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

// R7 over sockets: forwarding, the cache, TCP for large answers, 0x20.
func TestForwardOverSockets(t *testing.T) {
	up, asked := upstreamServer(t)
	_, b := serve(t, standard(t).self, []string{"net1"}, func(c *Config) { c.Forward = ForwardConfig{Upstreams: []netip.AddrPort{up}} })
	r := ask(t, b, "udp", query("wWw.Example.com.", dns.TypeA))
	if len(r.Answer) != 1 || r.Answer[0].Header().Name != "wWw.Example.com." || r.Authoritative || !r.RecursionAvailable || r.IsEdns0() != nil {
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
	for _, local := range []string{"nope.", "nope.net1.", "cache.net2.mesh.internal.", "77.0.1.10.in-addr.arpa.", "tasks.nope."} {
		ask(t, b, "udp", query(local, dns.TypeA))
		ask(t, b, "udp", query(local, dns.TypeTXT))
	}
	if n := asked.Load(); n != before {
		t.Errorf("R3: %d local names leaked upstream", n-before)
	}
}

// R7: upstreams that are ourselves are not asked.
func TestLoopGuard(t *testing.T) {
	s, b := serve(t, standard(t).self, []string{"net1"})
	s.forward.pool.cfg = ForwardConfig{Upstreams: []netip.AddrPort{b.Addr()}}
	if p := s.forward.pool.plan(time.Now()); len(p) != 0 || s.met.upstream.loops.Load() != 1 {
		t.Errorf("plan %v", p)
	}
	local := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	for own, want := range map[string]bool{
		"127.0.0.1:53": false, "192.0.2.1:53": true, "0.0.0.0:53": true, "[::]:53": true, "0.0.0.0:54": false, "192.0.2.2:53": false,
	} {
		if got := isOwn(netip.MustParseAddrPort("192.0.2.1:53"), []netip.AddrPort{netip.MustParseAddrPort(own)}, local); got != want {
			t.Errorf("listener %s: %v", own, got)
		}
	}
	if isOwn(netip.MustParseAddrPort("9.9.9.9:53"), []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}, local) {
		t.Error("a listener on every address hides a remote upstream")
	}
}

// R7: resolv.conf is read again when it changes; what cannot be read changes nothing.
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
		for _, u := range s.forward.pool.plan(now) {
			out = append(out, u.addr.String())
		}
		return out
	}
	if p := plan(""); p != nil {
		t.Errorf("no file: %v", p)
	}
	if p := plan("nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch x\noptions ndots:2\n"); len(p) != 4 || p[1] != "[2001:db8::1]:53" {
		t.Errorf("%v", p)
	}
	if p := plan("nameserver 192.0.2.2\n# longer\n"); len(p) != 2 || p[0] != "192.0.2.2:53" {
		t.Errorf("%v", p)
	}
	if p := plan(""); len(p) != 2 {
		t.Errorf("the file vanished: %v", p)
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
		if answers(m, c.r) != c.want {
			t.Errorf("%d: %v", i, c.r)
		}
	}
}
