package resolver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/state"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// serve starts a server on a free port of 127.0.0.1, bound to the networks.
func serve(tb testing.TB, src state.Source, networks []string, change ...func(*Config)) (*Server, *Bound) {
	tb.Helper()
	cfg := Config{Source: src, Forward: ForwardConfig{Disabled: true}}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			tb.Error(err)
		}
	})
	b, err := s.Listen(Listener{Addr: loopback, Networks: networks})
	if err != nil {
		tb.Fatal(err)
	}
	return s, b
}

// ask sends one query and returns the reply.
func ask(tb testing.TB, b *Bound, proto string, m *dns.Msg) *dns.Msg {
	tb.Helper()
	c := dns.Client{Net: proto, Timeout: 5 * time.Second, UDPSize: 4096}
	r, _, err := c.Exchange(m, b.Addr().String())
	if err != nil {
		tb.Fatalf("%s %v: %v", proto, m.Question, err)
	}
	return r
}

func query(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

// The same cases as TestNames, over both protocols.
func TestNamesOverSockets(t *testing.T) {
	s, b := serve(t, standard(t).self, nil)
	for _, c := range nameCases(t) {
		switch scope := scopeOf(c.scope); {
		case scope.Host:
			b.SetNetworks(nil)
		default:
			b.SetNetworks(append([]string{}, scope.Networks...))
		}
		for _, proto := range []string{"udp", "tcp"} {
			r := ask(t, b, proto, query(c.name, dns.StringToType[c.qtype]))
			forward := r.Rcode == dns.RcodeServerFailure
			got := zoneResult{Rcode: r.Rcode, Answer: r.Answer, Ns: r.Ns, Extra: r.Extra, Forward: forward}
			if strings.HasPrefix(c.name, "ns.mesh") {
				continue // answered with the listener's address
			}
			if text := render(&got); !slices.Equal(text, c.want) {
				t.Errorf("%s %s %s %s:\ngot  %q\nwant %q", proto, c.scope, c.name, c.qtype, text, c.want)
			}
			if !r.RecursionAvailable || r.Authoritative == got.Forward || r.Question[0].Name != c.name {
				t.Errorf("%s %s: header %v", proto, c.name, r.MsgHdr)
			}
		}
	}
	waitFor(t, func() bool { st := s.Stats(); return st.InFlight == 0 && len(st.Queries) > 0 })
}

// R1: scope by client address on a shared listener.
func TestScopeByClient(t *testing.T) {
	w := newWorld(t, "net1")
	w.commit("a", "net1", task(t, "t1 web 1 127.0.0.9 -"))
	_, b := serve(t, w.self, nil)
	for client, want := range map[string]int{"127.0.0.9": dns.RcodeSuccess, "127.0.0.8": dns.RcodeNameError} {
		c := dns.Client{Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(client)}}}
		r, _, err := c.Exchange(query("web.", dns.TypeA), b.Addr().String())
		if err != nil || r.Rcode != want {
			t.Errorf("client %s: %v %v", client, r, err)
		}
	}
}

func big(tb testing.TB, n int) *world {
	w := newWorld(tb, "net1")
	var cs []state.Change
	for i := range n {
		ip := netip.AddrFrom4([4]byte{172, 16, byte(i / 250), byte(i%250 + 1)})
		cs = append(cs, task(tb, "t"+ip.String()[strings.LastIndexByte(ip.String(),
			'.')+1:]+"-"+string(rune('a'+i/250))+" big 1 "+ip.String()+" - port=http:80"))
	}
	w.commit("a", "net1", append(cs, dnsrr("big"))...)
	return w
}

// R3: TC with as many answers as fit, the whole over TCP, EDNS sizes clamped.
func TestTruncation(t *testing.T) {
	_, b := serve(t, big(t, 200).self, []string{"net1"})
	for _, c := range []struct {
		edns uint16
		want int
		tc   bool
	}{{0, 30, true}, {100, 30, true}, {512, 30, true}, {1232, 75, true}, {4096, 75, true}} {
		m := query("big.", dns.TypeA)
		size := 512
		if c.edns > 0 {
			m.SetEdns0(c.edns, false)
			size = min(max(size, int(c.edns)), 1232)
		}
		r := ask(t, b, "udp", m)
		if r.Compress = true; len(r.Answer) != c.want || r.Truncated != c.tc || r.Len() > size {
			t.Errorf("EDNS %d: %d answers, TC %v, %d bytes", c.edns, len(r.Answer), r.Truncated, r.Len())
		}
		if (r.IsEdns0() != nil) != (c.edns > 0) {
			t.Errorf("EDNS %d: OPT %v", c.edns, r.IsEdns0())
		}
	}
	if r := ask(t, b, "tcp", query("big.", dns.TypeA)); len(r.Answer) != 200 || r.Truncated {
		t.Errorf("tcp: %d answers, TC %v", len(r.Answer), r.Truncated)
	}
	if r := ask(t, b, "udp", query("_http._tcp.big.", dns.TypeSRV)); !r.Truncated || len(r.Answer) == 0 {
		t.Errorf("SRV: %d answers, TC %v", len(r.Answer), r.Truncated)
	}
}

// R4: a question for an unknown name waits for the first sync.
func TestHoldUntilSync(t *testing.T) {
	w := newWorld(t)
	tab := w.self.Join("net1")
	s, b := serve(t, w.self, []string{"net1"}, func(c *Config) { c.HoldTime = 30 * time.Second })
	replies := make(chan *dns.Msg)
	for _, name := range []string{"web.", "never."} {
		go func() {
			c := dns.Client{Timeout: 20 * time.Second}
			r, _, _ := c.Exchange(query(name, dns.TypeA), b.Addr().String())
			replies <- r
		}()
	}
	waitFor(t, func() bool { return s.met.get(countHeld) == 2 })
	w.commit("a", "net1", task(t, "t1 web 1 172.16.1.1 -"))
	if r := <-replies; r == nil || len(r.Answer) != 1 {
		t.Errorf("the name that appeared: %v", r)
	}
	tab.SetSynced()
	if r := <-replies; r == nil || r.Rcode != dns.RcodeNameError {
		t.Errorf("the name that did not: %v", r)
	}
}

// R4: the wait is bounded in time and in number.
func TestHoldBounds(t *testing.T) {
	w := newWorld(t)
	w.self.Join("net1")
	s, b := serve(t, w.self, []string{"net1"}, func(c *Config) { c.HoldTime, c.HoldMax = 20*time.Millisecond, 1 })
	if r := ask(t, b, "udp", query("web.", dns.TypeA)); r.Rcode != dns.RcodeNameError {
		t.Error(r)
	}
	s.holding.take(netip.Addr{}, 1, 1)
	if r := ask(t, b, "udp", query("web.", dns.TypeA)); r.Rcode != dns.RcodeNameError || s.met.get(countHeldFull) != 1 {
		t.Error(r, s.Stats())
	}
	s.holding.leave(netip.Addr{})
}

func waitFor(tb testing.TB, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatal("nothing happens")
		}
	}
}

// Replies over TCP need not come in order, and many questions fit a connection.
func TestTCPPipeline(t *testing.T) {
	_, b := serve(t, standard(t).self, []string{"net1"})
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	const n = 300
	for id := range n {
		m := query("web.", dns.TypeA)
		m.Id = uint16(id)
		p, _ := m.Pack()
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...)); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[uint16]bool{}
	for range n {
		var l uint16
		if err := binary.Read(c, binary.BigEndian, &l); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, l)
		if _, err := io.ReadFull(c, p); err != nil {
			t.Fatal(err)
		}
		seen[binary.BigEndian.Uint16(p)] = true
	}
	if len(seen) != n {
		t.Errorf("%d replies", len(seen))
	}
}

func TestTCPLimits(t *testing.T) {
	s, b := serve(t, standard(t).self, []string{"net1"}, func(c *Config) { c.MaxTCPClient = 2 })
	var conns []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	waitFor(t, func() bool { return s.met.get(countTCPRefused) == 1 })
	conns[2].SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conns[2].Read(make([]byte, 1)); err == nil {
		t.Error("the third connection is open")
	}
	conns[0].Close()
	waitFor(t, func() bool {
		c := dns.Client{Net: "tcp"}
		_, _, err := c.Exchange(query("web.", dns.TypeA), b.Addr().String())
		return err == nil
	})
}

type panicking struct{ state.Source }

func (p panicking) View(string) state.View { panic("test") }

// A bug in answering costs one SERVFAIL, not the daemon.
func TestPanicIsServfail(t *testing.T) {
	var log bytes.Buffer
	s, b := serve(t, panicking{standard(t).self}, []string{"net1"}, func(c *Config) { c.Log = quiet(&log) })
	for _, proto := range []string{"udp", "tcp"} {
		if r := ask(t, b, proto, query("web.", dns.TypeA)); r.Rcode != dns.RcodeServerFailure {
			t.Error(proto, r)
		}
	}
	var panics uint64
	waitFor(t, func() bool {
		panics = 0
		for _, q := range s.Stats().Queries {
			if q.Outcome == "panic" {
				panics += q.Count
			}
		}
		return panics == 2
	})
}

// Over the limit of handlers a query is dropped and counted.
func TestOverload(t *testing.T) {
	s, b := serve(t, standard(t).self, []string{"net1"}, func(c *Config) { c.MaxInFlight = 4; c.DisableFast = true })
	s.running.Add(4)
	c := dns.Client{Timeout: 50 * time.Millisecond}
	if r, _, err := c.Exchange(query("web.", dns.TypeA), b.Addr().String()); err == nil {
		t.Error("answered:", r)
	}
	s.running.Add(-4)
	if st := s.Stats(); st.Queries[0].Outcome != "dropped" {
		t.Errorf("%+v", st)
	}
	ask(t, b, "udp", query("web.", dns.TypeA))
}

func TestListen(t *testing.T) {
	s, b := serve(t, standard(t).self, []string{"net1"})
	ctx := t.Context()
	b2, err := s.Listen(Listener{Addr: netip.MustParseAddrPort("[::1]:0"), Networks: []string{"net2"}})
	if err != nil {
		t.Skip("no IPv6:", err)
	}
	if r := ask(t, b2, "udp", query("cache.", dns.TypeA)); len(r.Answer) != 1 {
		t.Error(r)
	}
	if _, err := s.Listen(Listener{Addr: b.Addr()}); err == nil {
		t.Error("an address twice")
	}
	if _, err := s.Listen(Listener{}); err == nil {
		t.Error("no address")
	}
	if err := b2.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := b2.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, err := s.Listen(Listener{Addr: loopback}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	src := standard(t).self
	for field, c := range map[string]Config{
		"Source": {}, "Domain": {Source: src, Domain: "a..b"}, "TTL": {Source: src, TTL: -1},
		"NegativeTTL": {Source: src, NegativeTTL: time.Minute}, "MaxUDPPayload": {Source: src, MaxUDPPayload: 100},
		"Upstreams": {Source: src, Forward: ForwardConfig{Upstreams: []netip.AddrPort{{}}}},
		"Hedge":     {Source: src, Forward: ForwardConfig{Hedge: -1}},
		"no server": {Source: src, Forward: ForwardConfig{Domains: map[string][]netip.AddrPort{"corp.example": nil}}},
		"a..b":      {Source: src, Forward: ForwardConfig{Domains: map[string][]netip.AddrPort{"a..b": {loopback}}}},
		"Domains x": {Source: src, Forward: ForwardConfig{Domains: map[string][]netip.AddrPort{"x": {loopback}}}},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// Sockets that are already open, such as a sandbox's, are taken over.
func TestListenOnGivenSockets(t *testing.T) {
	s, _ := serve(t, standard(t).self, nil)
	p, l, err := listenBoth(loopback)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Listen(Listener{Packet: p, Stream: l, Networks: []string{"net2"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, proto := range []string{"udp", "tcp"} {
		if r := ask(t, b, proto, query("cache.", dns.TypeA)); len(r.Answer) != 1 {
			t.Error(proto, r)
		}
	}
	p, l, err = listenBoth(loopback)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := s.Listen(Listener{Packet: p}); err == nil {
		t.Error("a packet socket without a stream socket")
	}
	if _, err := p.WriteTo([]byte{0}, p.LocalAddr()); err == nil {
		t.Error("Listen did not close the socket that it took")
	}
}

// Readers and the table's goroutine at once: every reply is one of the two states.
func TestChurn(t *testing.T) {
	w := standard(t)
	_, b := serve(t, w.self, []string{"net1"})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				w.self.SetLiveness("b", []state.Liveness{state.Dead, state.Alive}[i%2])
				w.self.Publish(0)
			}
		}
	}()
	for i := range 300 {
		r := ask(t, b, []string{"udp", "tcp"}[i%2], query("tasks.web.", dns.TypeA))
		if n := len(r.Answer); n != 1 && n != 2 {
			t.Fatalf("reply %v", r)
		}
	}
	close(stop)
	<-done
}
