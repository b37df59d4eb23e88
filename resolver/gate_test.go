package resolver

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// gateOf is a gate of a server with the clients, at a time that the test sets.
func gateOf(tb testing.TB, clients []netip.Prefix, change ...func(*Config)) *gate {
	s, _ := serve(tb, standard(tb).self, []string{"net1"}, append(change, func(c *Config) { c.Clients = clients })...)
	g := newGate(s)
	g.now = time.Hour
	return g
}

func prefixes(texts ...string) (ps []netip.Prefix) {
	for _, t := range texts {
		ps = append(ps, netip.MustParsePrefix(t))
	}
	return ps
}

// R8: clients, the host itself and its tasks are served, others are refused.
func TestGate(t *testing.T) {
	task := netip.MustParseAddr("192.0.2.77")
	g := gateOf(t, prefixes("10.1.0.0/16", "fd00::/8"),
		func(c *Config) { c.LocalTask = func(a netip.Addr) bool { return a == task } })
	for client, want := range map[string]admission{
		"10.1.2.3": admitted, "10.2.0.1": refused, "127.0.0.1": admitted, "127.9.9.9": admitted, "::1": admitted,
		"fd01::1": admitted, "2001:db8::1": refused, "192.0.2.77": admitted, "192.0.2.78": refused, "0.0.0.0": refused,
	} {
		for range 3 { // the second time it is known
			if got := g.admit(netip.MustParseAddr(client)); got != want {
				t.Errorf("%s: %d, want %d", client, got, want)
			}
		}
	}
	g.server.SetClients(prefixes("10.2.0.0/16"), nil)
	for client, want := range map[string]admission{"10.1.2.3": refused, "10.2.0.1": admitted, "192.0.2.77": admitted} {
		if got := g.admit(netip.MustParseAddr(client)); got != want {
			t.Errorf("after the change, %s: %d, want %d", client, got, want)
		}
	}
	task = netip.Addr{}
	g.now += taskMemory
	if got := g.admit(netip.MustParseAddr("192.0.2.77")); got != refused {
		t.Errorf("the address of a task that has ended: %d", got)
	}
	if last, ok := g.server.LastStranger(); !ok || !last.Addr.IsValid() {
		t.Error("no refused client is remembered")
	}
	g.server.SetClients(nil, nil)
	if got := g.admit(netip.MustParseAddr("192.0.2.78")); got != admitted {
		t.Errorf("without a list: %d", got)
	}
}

// R8: a client has its rate and burst, others have theirs; an IPv6 host is one client.
func TestGateRate(t *testing.T) {
	g := gateOf(t, nil, func(c *Config) { c.ClientRate = 100 })
	spend := func(of func(i int) string, n int) (taken int) {
		for i := range n {
			if g.admit(netip.MustParseAddr(of(i))) == admitted {
				taken++
			}
		}
		return taken
	}
	one := func(int) string { return "10.1.1.1" }
	if n := spend(one, 1000); n != 200 {
		t.Errorf("%d of a burst of 200", n)
	}
	g.now += time.Second
	if n := spend(one, 1000); n != 100 {
		t.Errorf("%d a second later, want 100", n)
	}
	if n := spend(func(i int) string { return fmt.Sprintf("fd00::1:%x", i) }, 2000); n != 800 {
		t.Errorf("%d of the addresses of one /64, want 800", n)
	}
	if n := spend(func(int) string { return "127.0.0.1" }, 1000); n != 1000 {
		t.Errorf("%d of the host itself", n)
	}
	g.now += time.Hour
	if n := spend(one, 1000); n != 200 {
		t.Errorf("%d after a rest, want the burst and no more", n)
	}
	g = gateOf(t, nil, func(c *Config) { c.ClientRate = -1 })
	if n := spend(one, 100_000); n != 100_000 {
		t.Errorf("%d without a limit", n)
	}
}

// R8: a program on the host asks at an address of the host from that address: it
// is the host itself, whoever the clients are, and has no limit.
func TestGateHost(t *testing.T) {
	own := []netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0"),
		netip.MustParseAddr("10.0.0.1"),
	}
	g := gateOf(t, prefixes("10.0.0.0/8"), func(c *Config) { c.ClientRate, c.HostAddrs = 100, own })
	for _, a := range own {
		for i := range 1000 {
			if got := g.admit(a.WithZone("")); got != admitted {
				t.Fatalf("question %d of %s: %d", i, a, got)
			}
		}
		if !g.server.serves(a) {
			t.Errorf("a connection of %s is refused", a)
		}
	}
	g.server.SetClients(prefixes("10.0.0.0/8"), nil)
	if got := g.admit(own[0]); got != refused {
		t.Errorf("an address that the host lost: %d", got)
	}
}

// R8: strangers who come too fast are not even looked up.
func TestGateStrangers(t *testing.T) {
	looked := 0
	g := gateOf(t, []netip.Prefix{}, func(c *Config) { c.LocalTask = func(netip.Addr) bool { looked++; return false } })
	count := map[admission]int{}
	for i := range 10_000 {
		count[g.admit(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))]++
	}
	if count[refused] != strangerRate || count[dropped] != 10_000-strangerRate || looked != strangerRate {
		t.Errorf("%v, %d looked up", count, looked)
	}
}

// A client that is turned away gets a reply no larger than its packet, and only to
// a plain question.
func TestGateReply(t *testing.T) {
	g := gateOf(t, nil)
	q, _ := query("web.net1.mesh.internal.", dns.TypeA).Pack()
	edns := query("web.net1.mesh.internal.", dns.TypeA)
	edns.SetEdns0(4096, true)
	withOPT, _ := edns.Pack()
	for _, packet := range [][]byte{q, withOPT} {
		for a, want := range map[admission]int{refused: dns.RcodeRefused, limited: dns.RcodeSuccess} {
			buf := make([]byte, 4096)
			n := g.reply(a, buf, copy(buf, packet))
			var m dns.Msg
			if err := m.Unpack(buf[:n]); err != nil || n > len(packet) || m.Rcode != want || !m.Response ||
				m.Truncated != (a == limited) || len(m.Question) != 1 || len(m.Extra) > 0 {
				t.Errorf("%d: %d bytes for %d, %v, %v", a, n, len(packet), err, &m)
			}
		}
		buf := make([]byte, 4096)
		if n := g.reply(dropped, buf, copy(buf, packet)); n != 0 {
			t.Errorf("dropped, and replied to with %d bytes", n)
		}
	}
	response := append([]byte{}, q...)
	response[2] |= 0x80
	update := append([]byte{}, q...)
	update[2] |= 5 << 3
	none := append([]byte{}, q...)
	none[5] = 0
	for _, packet := range [][]byte{{}, {1}, q[:12], q[:len(q)-1], response, update, none, make([]byte, 512)} {
		buf := make([]byte, 4096)
		if n := g.reply(refused, buf, copy(buf, packet)); n != 0 {
			t.Errorf("%x got a reply of %d bytes", packet, n)
		}
	}
}

// R8: every kind of socket turns strangers away, over UDP and TCP, and serves
// them when they become clients. The stranger here is this machine's own
// address, asked over it; skipped where there is none.
func TestGateSockets(t *testing.T) {
	own := ownAddr(t)
	for name, c := range map[string]struct {
		addr    netip.Addr
		disable bool
	}{
		"batches": {addr: own}, "ordinary": {own, true}, "all addresses": {addr: netip.IPv4Unspecified()},
	} {
		s, _ := serve(t, standard(t).self, nil, func(cfg *Config) {
			cfg.Clients, cfg.DisableFast = prefixes("203.0.113.0/24"),
				c.disable
		})
		b, err := s.Listen(Listener{Addr: netip.AddrPortFrom(c.addr, 0), Networks: []string{"net1"}})
		if err != nil {
			t.Fatal(err)
		}
		at := netip.AddrPortFrom(own, b.Addr().Port()).String()
		q := query("web.net1.mesh.internal.", dns.TypeA)
		r, _, err := new(dns.Client).Exchange(q, at)
		if err != nil || r.Rcode != dns.RcodeRefused {
			t.Errorf("%s: a stranger over UDP: %v, %v", name, r, err)
		}
		if r, _, err := (&dns.Client{Net: "tcp"}).Exchange(q, at); err == nil {
			t.Errorf("%s: a stranger over TCP: %v", name, r)
		}
		// counted after the answer is sent, and the connection closed
		waitFor(t, func() bool { return s.met.get(countStrangers) == 2 })
		s.SetClients([]netip.Prefix{netip.PrefixFrom(own, own.BitLen())}, nil)
		for _, proto := range []string{"udp", "tcp"} {
			if r, _, err := (&dns.Client{Net: proto}).Exchange(q, at); err != nil || len(r.Answer) != 1 {
				t.Errorf("%s: a client over %s: %v, %v", name, proto, r, err)
			}
		}
	}
}

// R8: over its rate a client gets TC, and is answered over TCP.
func TestGateSlip(t *testing.T) {
	own := ownAddr(t)
	s, _ := serve(t, standard(t).self, nil, func(cfg *Config) { cfg.ClientRate = 1 })
	b, err := s.Listen(Listener{Addr: netip.AddrPortFrom(own, 0), Networks: []string{"net1"}})
	if err != nil {
		t.Fatal(err)
	}
	q := query("web.net1.mesh.internal.", dns.TypeA)
	truncated := false
	for range 10 {
		r, _, err := (&dns.Client{Timeout: 200 * time.Millisecond}).Exchange(q, b.Addr().String())
		truncated = truncated || err == nil && r.Truncated
	}
	if st := s.Stats(); !truncated || s.met.get(countLimited) == 0 || s.met.get(countDropped) == 0 {
		t.Errorf("truncated %v, %+v", truncated, st)
	}
	if r, _, err := (&dns.Client{Net: "tcp"}).Exchange(q, b.Addr().String()); err != nil || len(r.Answer) != 1 {
		t.Errorf("over TCP: %v, %v", r, err)
	}
}

// ownAddr returns an IPv4 address of this machine beside loopback.
func ownAddr(tb testing.TB) netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		tb.Skip(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	tb.Skip("no address but loopback")
	return netip.Addr{}
}

// A client takes at most its share of the questions that wait for the first sync.
func TestHoldShare(t *testing.T) {
	h := holds{clients: map[netip.Addr]int{}}
	greedy, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	held := 0
	for range 100 {
		if h.take(greedy, 16, 256) {
			held++
		}
	}
	if held != 16 || !h.take(other, 16, 256) {
		t.Errorf("one client holds %d places", held)
	}
	for range held {
		h.leave(greedy)
	}
	if h.leave(other); h.n != 0 || len(h.clients) != 0 {
		t.Errorf("left over: %+v", &h)
	}
}

// Datagrams, whose addresses may be made up, never take the places of TCP.
func TestForwardShares(t *testing.T) {
	f := newForwarder(t.Context(), ForwardConfig{Max: 8, MaxClient: 2, Disabled: true}, nil, newMetrics(), nil)
	taken := 0
	for i := range 100 {
		if f.admit(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), false) {
			taken++
		}
	}
	if taken != 6 || !f.admit(netip.MustParseAddr("10.1.0.1"), true) || !f.admit(netip.MustParseAddr("10.1.0.1"), true) ||
		f.admit(netip.MustParseAddr("10.1.0.1"), true) {
		t.Errorf("%d taken by datagrams", taken)
	}
}

// What the gate costs per packet of a client in the list, of one that has a limit
// too, and of the host itself.
func BenchmarkGate(b *testing.B) {
	clients := prefixes("10.0.0.0/8", "172.16.0.0/12", "fd00::/8", "192.168.0.0/16")
	for name, c := range map[string]struct {
		clients []netip.Prefix
		rate    int
		from    string
	}{
		"loopback": {clients, 1 << 29, "127.0.0.1"}, "list": {clients, -1, "192.168.1.1"}, "rate": {nil, 1 << 29, "192.168.1.1"}, "both": {clients, 1 << 29, "192.168.1.1"},
	} {
		b.Run(name, func(b *testing.B) {
			g := gateOf(b, c.clients, func(cfg *Config) { cfg.ClientRate = c.rate })
			client := netip.MustParseAddr(c.from)
			i := 0
			for b.Loop() {
				if i++; i%32 == 0 {
					g.begin()
				}
				g.admit(client)
			}
		})
	}
}
