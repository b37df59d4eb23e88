package resolver

import (
	"bytes"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"meshd/state"
)

// fast runs the fast path on a packet as the socket's reader would.
func (f *fastPath) ask(pkt []byte, client netip.Addr) []byte {
	buf := make([]byte, 4096)
	n := copy(buf, pkt)
	r := f.answer(buf, n, client)
	if r == 0 && !bytes.Equal(buf[:n], pkt) {
		panic("the buffer was changed without an answer")
	}
	return buf[:r]
}

// hostAddr is the address of clients on the host itself.
var hostAddr = netip.MustParseAddr("127.0.0.1")

// R6: what the fast path answers is what the ordinary path answers, but for the
// order, which TestFastPathOrders compares.
func sameAnswer(t *testing.T, s *Server, b *Bound, f *fastPath, pkt []byte, client netip.AddrPort) bool {
	t.Helper()
	reply := f.ask(pkt, client.Addr())
	if len(reply) == 0 {
		return false
	}
	var q, got, want dns.Msg
	if err := q.Unpack(pkt); err != nil {
		t.Fatalf("answered what does not parse: %v", err)
	}
	slow, _ := s.answer(b, question{msg: &q, client: client})
	if err := want.Unpack(slow); err != nil {
		t.Fatal(err)
	}
	if err := got.Unpack(reply); err != nil {
		t.Fatalf("reply % x: %v", reply, err)
	}
	if unordered(&got) != unordered(&want) {
		t.Fatalf("fast:\n%v\nordinary:\n%v", &got, &want)
	}
	return true
}

func TestFastPathAgrees(t *testing.T) {
	s, b := serve(t, standard(t).self, nil)
	f := newFastPath(b)
	local := netip.MustParseAddrPort("127.0.0.1:9")
	fast := 0
	for range 2 { // packing, then packed
		for _, c := range nameCases(t) {
			if b.SetNetworks(append([]string{}, scopeOf(c.scope).Networks...)); c.scope == "host" {
				b.SetNetworks(nil)
			}
			for _, qtype := range packedTypes {
				m := query(c.name, qtype)
				plain, _ := m.Pack()
				edns, _ := m.SetEdns0(1232, true).Pack()
				if sameAnswer(t, s, b, f, plain, local) {
					fast++
				}
				sameAnswer(t, s, b, f, edns, local)
			}
		}
		for _, p := range probes {
			b.SetNetworks([]string{"net1"})
			sameAnswer(t, s, b, f, packet(t, p.packet), local)
		}
	}
	if fast < 1000 {
		t.Errorf("only %d questions took the fast path", fast)
	}
	b.SetNetworks(nil)
	for _, client := range []string{"172.16.1.1:1", "172.16.2.1:1", "172.16.1.99:1", "127.0.0.1:1"} {
		for _, c := range nameCases(t) {
			m, _ := query(c.name, dns.TypeA).Pack()
			sameAnswer(t, s, b, f, m, netip.MustParseAddrPort(client))
		}
	}
}

// R3: names that may be forwarded are not denied.
func TestFastPathForwards(t *testing.T) {
	s, b := serve(t, standard(t).self, []string{"net1"}, func(c *Config) {
		c.ForwardBare, c.SharedSuffixes = true, []string{"net1"}
	})
	f := newFastPath(b)
	for name, fast := range map[string]bool{
		"other.": false, "other.net1.": false, "example.com.": false, "other.net2.": true, "other.net1.mesh.internal.": true,
		"web.": true, "web.net1.": true, "mesh.internal.": false, "ns.mesh.internal.": false, "localhost.": false,
		"nearest.web.":          false,
		"8.8.8.8.in-addr.arpa.": false, "b.c.": false,
	} {
		m, _ := query(name, dns.TypeA).Pack()
		if sameAnswer(t, s, b, f, m, hostClient) != fast {
			t.Errorf("%s: answered by the fast path: %v", name, !fast)
		}
	}
}

// R6.5: a packed answer lives as long as its service, network, scope and VIPs' state.
func TestFastPathFollowsTheView(t *testing.T) {
	w := standard(t)
	usable := true
	s, b := serve(t, w.self, []string{"net1"}, func(c *Config) { c.VIPsUsable = func(string) bool { return usable } })
	f := newFastPath(b)
	for _, name := range []string{
		"web.", "web.net1.mesh.internal.", "tasks.web.", "tasks.web.net1.mesh.internal.", "db.", "www.", "web-one.",
		"host-two.",
		"aaaaaaaaaaaa.", "web.1.aaaaaaaaaaaaaaaaaaaaaaaa1.", "new.", "1.1.16.172.in-addr.arpa.", "5.0.1.10.in-addr.arpa.",
		"_http._tcp.web.net1.",
	} {
		ask := func() {
			t.Helper()
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeSRV, dns.TypeMX} {
				m, _ := query(name, qtype).Pack()
				elsewhere := strings.HasSuffix(name, ".arpa.") || strings.HasPrefix(name, "web.1.") // may be a name to forward
				if !sameAnswer(t, s, b, f, m, hostClient) && !elsewhere {
					t.Errorf("%s: not answered by the fast path", name)
				}
			}
		}
		ask()
		usable = false
		ask()
		usable = true
		ask()
		b.SetNetworks([]string{"net2"})
		ask()
		b.SetNetworks([]string{"net2", "net1"})
		ask()
		b.SetNetworks([]string{"net1"})
		w.liveness("b", state.Suspected)
		ask()
		w.liveness("b", state.Alive)
		ask()
		w.commit("a", "net1", task(t, "new1 new 1 172.16.1.88 - alias=www alias=alpha host=host-two"),
			task(t, "aaaaaaaaaaaa web 9 172.16.1.89 -"))
		ask()
		w.commit("a", "net1", state.Change{Kind: state.KindEndpoint, Key: "new1", Delete: true},
			state.Change{Kind: state.KindEndpoint, Key: "aaaaaaaaaaaa", Delete: true})
		ask()
	}
	m, _ := query("web.", dns.TypeA).Pack()
	w.self.Leave("net1")
	if !sameAnswer(t, s, b, f, m, hostClient) || f.ask(m, hostAddr)[3]&15 != dns.RcodeNameError {
		t.Error("a network that this node left still answers")
	}
	w.self.Join("net1").SetSynced()
	w.commit("b", "net1", task(t, "again web 1 172.16.1.77 -"))
	if !sameAnswer(t, s, b, f, m, hostClient) || f.ask(m, hostAddr)[3]&15 != dns.RcodeSuccess {
		t.Error("a network that this node is in again does not answer")
	}
}

var hostClient = netip.MustParseAddrPort("127.0.0.1:9")

// R6.3: the rotation gives every task its turn by weight, serving ones before suspected ones.
func TestFastPathRotates(t *testing.T) {
	_, b := serve(t, standard(t).self, []string{"net1"})
	f := newFastPath(b)
	m, _ := query("db.", dns.TypeA).Pack()
	first := map[string]int{}
	for range 400 {
		var r dns.Msg
		if err := r.Unpack(f.ask(m, hostAddr)); err != nil {
			t.Fatal(err)
		}
		first[r.Answer[0].(*dns.A).A.String()]++
		if r.Answer[2].(*dns.A).A.String() != "172.16.1.23" {
			t.Fatal("the suspected task is not last")
		}
	}
	if first["172.16.1.21"] < 250 || first["172.16.1.22"] < 60 { // weights 3 and 1
		t.Error(first)
	}
}

// R6.4: no allocation per question: hits of every kind, negative answers, and
// answers found to be still true after the view changed.
func TestFastPathAllocs(t *testing.T) {
	w := standard(t)
	_, b := serve(t, w.self, []string{"net1"})
	for _, c := range []struct {
		name   string
		qtype  uint16
		change bool
	}{
		{"web.", dns.TypeA, false},
		{"tasks.web.net1.mesh.internal.", dns.TypeA, false},
		{"db.", dns.TypeA, false},
		{"WWW.net1.", dns.TypeAAAA, false},
		{"web.net1.", dns.TypeMX, false},
		{"db.net1.mesh.internal.", dns.TypeAAAA, false},
		{"empty.", dns.TypeA, false},
		{"_http._tcp.web.", dns.TypeSRV, false},
		{"web.1." + idA1 + ".", dns.TypeA, false},
		{"1.1.16.172.in-addr.arpa.", dns.TypePTR, false},
		{"nope.", dns.TypeA, false},
		{"nope.net1.", dns.TypeA, false},
		{"nope.net1.mesh.internal.", dns.TypeAAAA, false},
		{"tasks.nope.net1.mesh.internal.", dns.TypeA, false},
		{"web.net9.mesh.internal.", dns.TypeA, false},
		{"tasks.nope.", dns.TypeA, false},
		{"_x._tcp.nope.", dns.TypeSRV, false},
		{"web.7.nope.", dns.TypeA, false},
		{"99.0.1.10.in-addr.arpa.", dns.TypePTR, false},
		{"web.net1.mesh.internal.", dns.TypeA, true},
		{"tasks.db.", dns.TypeA, true},
		{"www.", dns.TypeA, true},
		{"web-one.", dns.TypeA, true},
	} {
		f := newFastPath(b)
		m, _ := query(c.name, c.qtype).SetEdns0(1232, false).Pack()
		buf := make([]byte, 4096)
		if n := testing.AllocsPerRun(100, func() {
			if c.change && f.fixed != nil { // as if the view counted another change
				f.fixed.version++
				f.fixed.batch = f.batch + 1
			}
			if f.answer(buf, copy(buf, m), hostAddr) == 0 {
				t.Fatal("not answered")
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// fuzzScopes are the scopes that FuzzFastPath asks in.
var fuzzScopes = [][]string{{"net1"}, {"net1", "net2"}, {"net2", "net1"}, nil, {}, {"net3"}}

// FuzzFastPath holds the fast path to the ordinary one: for any packet, in any
// scope, from an IPv4 or IPv6 client, before and after changes of the views.
func FuzzFastPath(f *testing.F) {
	for i, p := range probes {
		f.Add(packet(f, p.packet), uint8(i), uint8(i))
	}
	for i, c := range nameCases(f) {
		qtype := dns.StringToType[c.qtype]
		for k := range fuzzScopes {
			m, _ := query(c.name, qtype).Pack()
			f.Add(m, uint8(k), uint8(i))
		}
		q := query(c.name, qtype).SetEdns0(uint16(512+7*i), i%2 == 0)
		q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"},
			&dns.EDNS0_PADDING{Padding: make([]byte, i)})
		m, _ := q.Pack()
		f.Add(m, uint8(i), uint8(i))
	}
	w := standard(f)
	w.self.Join("net3") // never synced
	usable := map[string]*atomic.Bool{"net1": {}, "net2": {}, "net3": {}}
	s, b := serve(f, w.self, nil, func(c *Config) {
		c.HoldTime, c.VIPsUsable = -1, func(n string) bool { return usable[n].Load() }
	})
	clients := []netip.AddrPort{
		hostClient, netip.MustParseAddrPort("172.16.1.1:1"), netip.MustParseAddrPort("[fd99::2]:1"),
		netip.MustParseAddrPort("[::ffff:172.16.1.99]:1"), netip.MustParseAddrPort("[fe80::1]:1"),
	}
	fast := make([]*fastPath, len(fuzzScopes))
	f.Fuzz(func(t *testing.T, pkt []byte, scope, event uint8) {
		if len(pkt) > 4096 {
			return
		}
		w.tb = t
		i := int(scope) % len(fuzzScopes)
		if b.SetNetworks(fuzzScopes[i]); fast[i] == nil {
			fast[i] = newFastPath(b)
		}
		client := clients[int(event)%len(clients)]
		sameAnswer(t, s, b, fast[i], pkt, client)
		fuzzEvent(t, w, int(event), usable)
		sameAnswer(t, s, b, fast[i], pkt, client)
	})
}

// fuzzEvent changes something that answers depend on.
func fuzzEvent(tb testing.TB, w *world, event int, usable map[string]*atomic.Bool) {
	switch event % 8 {
	case 0:
		u := usable[[]string{"net1", "net2"}[event/8%2]]
		u.Store(!u.Load())
	case 1:
		w.liveness("b", []state.Liveness{state.Alive, state.Suspected, state.Dead}[event/8%3])
	case 2:
		w.commit("a", "net1", task(tb, "moving web 7 172.16.1.70 fd99::70 alias=moved host=host-one port=http:80/tcp"))
	case 3:
		w.commit("a", "net1", task(tb, "moving db 1 172.16.1.71 - alias=www alias=web-one weight=9 port=5432/tcp"))
	case 4:
		w.commit("a", "net1", state.Change{Kind: state.KindEndpoint, Key: "moving", Delete: true})
	case 5:
		w.commit("a", "net2", task(tb, "moving2 moving 1 172.16.1.1 -"), vip("moving", "10.2.0.9", ""))
	case 6:
		w.commit("a", "net2", state.Change{Kind: state.KindEndpoint, Key: "moving2", Delete: true},
			state.Change{Kind: state.KindVIP, Key: "moving", Delete: true})
	}
}

func BenchmarkFastPath(b *testing.B) {
	_, bound := serve(b, standard(b).self, []string{"net1"})
	f := newFastPath(bound)
	m, _ := query("web.net1.mesh.internal.", dns.TypeA).SetEdns0(1232, false).Pack()
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if f.answer(buf, copy(buf, m), hostAddr) == 0 {
			b.Fatal("not answered")
		}
	}
}

func BenchmarkOrdinaryPath(b *testing.B) {
	s, bound := serve(b, standard(b).self, []string{"net1"})
	pkt, _ := query("web.net1.mesh.internal.", dns.TypeA).SetEdns0(1232, false).Pack()
	b.ReportAllocs()
	for b.Loop() {
		var m dns.Msg
		if err := m.Unpack(pkt); err != nil {
			b.Fatal(err)
		}
		s.answer(bound, question{msg: &m})
	}
}

// A service too large for one packet is left to the ordinary path at once.
func TestFastPathUnfit(t *testing.T) {
	_, b := serve(t, big(t, 200).self, []string{"net1"})
	f := newFastPath(b)
	m, _ := query("big.", dns.TypeA).Pack()
	f.ask(m, hostAddr)
	buf := make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if f.answer(buf, copy(buf, m), hostAddr) != 0 {
			t.Fatal("answered")
		}
	}); n > 0 {
		t.Errorf("%v allocations per question", n)
	}
}
