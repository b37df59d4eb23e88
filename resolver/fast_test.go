package resolver

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
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

var nobody = netip.MustParseAddr("127.0.0.1")

// R6: what the fast path answers is what the ordinary path answers.
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
	slow, _ := s.guarded(b, question{msg: &q, client: client})
	if err := want.Unpack(slow); err != nil {
		t.Fatal(err)
	}
	if err := got.Unpack(reply); err != nil {
		t.Fatalf("reply % x: %v", reply, err)
	}
	for _, m := range []*dns.Msg{&got, &want} {
		slices.SortFunc(m.Answer, func(a, b dns.RR) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
	}
	if !strings.EqualFold(got.String(), want.String()) { // a compressed SOA owner has the case of the question
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
			b.SetNetworks(append([]string{}, scopeOf(c.scope).Networks...))
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
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
	if fast < 60 {
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

// R6: a packed answer lives as long as its service, network, scope and VIPs' state.
func TestFastPathFollowsTheView(t *testing.T) {
	w := standard(t)
	usable := true
	s, b := serve(t, w.self, []string{"net1"}, func(c *Config) { c.VIPsUsable = func(string) bool { return usable } })
	f := newFastPath(b)
	for _, name := range []string{"web.", "web.net1.mesh.internal.", "tasks.web.", "tasks.web.net1.mesh.internal.", "db."} {
		m, _ := query(name, dns.TypeA).Pack()
		ask := func(want bool) {
			t.Helper()
			if sameAnswer(t, s, b, f, m, netip.MustParseAddrPort("127.0.0.1:9")) != want {
				t.Errorf("%s: fast path %v", name, !want)
			}
		}
		ask(true)
		usable = false
		ask(true)
		usable = true
		b.SetNetworks([]string{"net2"})
		ask(name == "web." || name == "tasks.web.")
		b.SetNetworks([]string{"net1"})
		ask(true)
		w.liveness("b", state.Suspected)
		ask(true)
		w.liveness("b", state.Alive)
		ask(true)
	}
	m, _ := query("web.", dns.TypeA).Pack()
	w.self.Part("net1")
	if sameAnswer(t, s, b, f, m, netip.MustParseAddrPort("127.0.0.1:9")) {
		t.Error("a network that this node left still answers")
	}
}

// R6: the rotation gives every task its turn, serving ones before suspected ones.
func TestFastPathRotates(t *testing.T) {
	_, b := serve(t, standard(t).self, []string{"net1"})
	f := newFastPath(b)
	m, _ := query("db.", dns.TypeA).Pack()
	first := map[string]int{}
	for range 200 {
		var r dns.Msg
		if err := r.Unpack(f.ask(m, nobody)); err != nil {
			t.Fatal(err)
		}
		first[r.Answer[0].(*dns.A).A.String()]++
		if r.Answer[2].(*dns.A).A.String() != "172.16.1.23" {
			t.Fatal("the suspected task is not last")
		}
	}
	if first["172.16.1.21"] < 60 || first["172.16.1.22"] < 60 {
		t.Error(first)
	}
}

// R6: no allocation per question.
func TestFastPathAllocs(t *testing.T) {
	_, b := serve(t, standard(t).self, []string{"net1"})
	f := newFastPath(b)
	for _, name := range []string{"web.", "tasks.web.net1.mesh.internal.", "db."} {
		m, _ := query(name, dns.TypeA).SetEdns0(1232, false).Pack()
		buf := make([]byte, 4096)
		if n := testing.AllocsPerRun(100, func() {
			if f.answer(buf, copy(buf, m), nobody) == 0 {
				t.Fatal("not answered")
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzFastPath holds the fast path to the ordinary one.
func FuzzFastPath(f *testing.F) {
	for _, p := range probes {
		f.Add(packet(f, p.packet))
	}
	for _, c := range nameCases(f) {
		m, _ := query(c.name, dns.TypeA).SetEdns0(1232, true).Pack()
		f.Add(m)
	}
	s, b := serve(f, standard(f).self, []string{"net1", "net2"})
	fast := newFastPath(b)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) <= 4096 {
			sameAnswer(t, s, b, fast, pkt, netip.MustParseAddrPort("127.0.0.1:9"))
		}
	})
}

func BenchmarkFastPath(b *testing.B) {
	_, bound := serve(b, standard(b).self, []string{"net1"})
	f := newFastPath(bound)
	m, _ := query("web.net1.mesh.internal.", dns.TypeA).SetEdns0(1232, false).Pack()
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if f.answer(buf, copy(buf, m), nobody) == 0 {
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
		s.guarded(bound, question{msg: &m})
	}
}

// A service too large for one packet is left to the ordinary path at once.
func TestFastPathUnfit(t *testing.T) {
	_, b := serve(t, big(t, 200).self, []string{"net1"})
	f := newFastPath(b)
	m, _ := query("big.", dns.TypeA).Pack()
	f.ask(m, nobody)
	buf := make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if f.answer(buf, copy(buf, m), nobody) != 0 {
			t.Fatal("answered")
		}
	}); n > 0 {
		t.Errorf("%v allocations per question", n)
	}
}
