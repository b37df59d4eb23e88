package resolver

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/state"
)

// R6.5: while the table changes, an answer is never older than what was published
// before the question, for any kind of name, and each question gets its answer.
func TestFastPathNeverLagsBehind(t *testing.T) {
	w := newWorld(t, "net1")
	var published atomic.Uint32
	publish := func(n uint32) {
		ip := netip.AddrFrom4([4]byte{172, 16, byte(n >> 8), byte(n)})
		port := fmt.Sprintf("%d/tcp", n)
		w.commit("a", "net1", task(t, fmt.Sprintf("t%d rr 1 %s - alias=rr-alias name=rr-name port=http:%s", n%7, ip, port)),
			state.Change{Kind: state.KindEndpoint, Key: fmt.Sprintf("t%d", (n+6)%7), Delete: true},
			task(t, fmt.Sprintf("o%d other%d 1 172.17.0.1 -", n%50, n%50)))
		published.Store(n)
	}
	w.commit("a", "net1", dnsrr("rr"))
	publish(1)
	_, b := serve(t, w.self, []string{"net1"})
	done := make(chan struct{})
	var clients sync.WaitGroup
	for _, q := range []*dns.Msg{
		query("rr.", dns.TypeA), query("tasks.rr-alias.net1.", dns.TypeA),
		query("rr-name.net1.mesh.internal.", dns.TypeA), query("_http._tcp.rr.", dns.TypeSRV),
	} {
		clients.Go(func() { follow(t, b, q, &published, done) })
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for n := uint32(2); n < 300; n++ {
		publish(n)
		<-tick.C
	}
	close(done)
	clients.Wait()
}

// follow asks until done and compares the version in the answer with what had
// been published before.
func follow(t *testing.T, b *Bound, q *dns.Msg, published *atomic.Uint32, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		before := published.Load()
		r, err := dns.Exchange(q, b.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		if len(r.Answer) == 0 {
			t.Errorf("%s: %v", q.Question[0].Name, r)
			return
		}
		got := uint32(0)
		switch rr := r.Answer[0].(type) {
		case *dns.A:
			got = uint32(rr.A[len(rr.A)-2])<<8 | uint32(rr.A[len(rr.A)-1])
		case *dns.SRV:
			got = uint32(rr.Port)
		}
		if got < before {
			t.Errorf("%s: version %d although %d had been published", q.Question[0].Name, got, before)
			return
		}
	}
}

// R1, R6: over IPv6, on a shared listener, the client's address determines its
// networks; and every question is counted.
func TestFastPathIPv6(t *testing.T) {
	w := newWorld(t, "net1")
	w.commit("a", "net1", task(t, "t1 web 1 172.16.1.1 ::1"), vip("web", "10.1.0.5", "fd00:1::5"))
	w.self.Table("net1").SetDef(state.NetworkDef{
		Name: "net1", Subnet4: netip.MustParsePrefix("10.1.0.0/24"),
		Subnet6: netip.MustParsePrefix("fd00:1::/64"),
	})
	w.self.Publish(0)
	s, _ := serve(t, w.self, nil)
	b, err := s.Listen(Listener{Addr: netip.MustParseAddrPort("[::1]:0")})
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	c, err := net.Dial("udp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	for round := range 10 {
		volley(t, c, []string{"web.", "web.net1.", "tasks.web.", "nope.", "_x._tcp.web.", "web.net1.mesh.internal."},
			uint16(round<<6))
	}
	if r := ask(t, b, "udp", query("web.", dns.TypeAAAA)); len(r.Answer) != 1 ||
		r.Answer[0].(*dns.AAAA).AAAA.String() != "fd00:1::5" {
		t.Errorf("%v", r)
	}
	waitFor(t, func() bool {
		counted := uint64(0)
		for _, q := range s.Stats().Queries {
			counted += q.Count
		}
		return counted == 61
	})
}

// R6.5: a change of services invalidates their answers alone, without allocation;
// very many changes at once invalidate all, and all are right.
func TestFastPathDoubtsWhatChanged(t *testing.T) {
	w := many(t, 1000)
	s, b := serve(t, w.self, []string{"net1"})
	f := newFastPath(b)
	ask := func(i int) {
		t.Helper()
		m, _ := query(fmt.Sprintf("svc%06d.net1.mesh.internal.", i), dns.TypeA).Pack()
		if !sameAnswer(t, s, b, f, m, hostClient) {
			t.Fatalf("service %d is not answered", i)
		}
	}
	for i := range 1000 {
		ask(i)
	}
	invalid := func() (n int) {
		f.begin()
		for i := range 1000 {
			key := f.serviceKey(fmt.Sprintf("svc%06d", i), "net1", dns.TypeA, false, true)
			if e, _ := f.fixed.table.at(f.fixed.table.find(hashKey(key), key)); e.seen < f.fixed.cleared || e.seen == 0 {
				n++
			}
		}
		return n
	}
	if n := invalid(); n != 0 {
		t.Errorf("%d invalid before any change", n)
	}
	w.commit("a", "net1", task(t, "t7 svc000007 1 172.16.9.9 -"), task(t, "t8 svc000008 1 172.16.9.8 -"))
	if n := invalid(); n != 2 {
		t.Errorf("%d invalid after a change of 2", n)
	}
	for i := range 10 {
		ask(i)
	}
	if n := invalid(); n != 0 {
		t.Errorf("%d invalid after they were asked for", n)
	}
	for k := range 10 {
		var cs []state.Change
		for i := range 50 {
			cs = append(cs, task(t, fmt.Sprintf("x%d svc%06d 1 172.16.10.%d -", i, 50*k+i, i+1)))
		}
		w.commit("a", "net1", cs...)
	}
	if n := invalid(); n != 1000 {
		t.Errorf("%d invalid after hundreds of changes, want all", n)
	}
	for i := range 1000 {
		ask(i)
	}
	least := uint64(1 << 63) // other goroutines allocate now and then
	for i := range 20 {
		w.commit("a", "net1", task(t, fmt.Sprintf("t9 svc000009 1 172.16.11.%d -", i+1)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f.begin()
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	if least > 0 {
		t.Errorf("%d allocations for a change", least)
	}
}

// R5, R6: whether VIPs are usable is a matter of each network, also where one
// scope has answers of several.
func TestFastPathVIPsPerNetwork(t *testing.T) {
	usable := map[string]bool{}
	s, b := serve(t, standard(t).self, []string{},
		func(c *Config) { c.VIPsUsable = func(n string) bool { return usable[n] } })
	for _, scope := range [][]string{nil, {"net1", "net2"}, {"net2", "net1"}} {
		b.SetNetworks(scope)
		f := newFastPath(b)
		for i := range 8 { // every change of two switches
			usable["net1"], usable["net2"] = i&1 != 0, (i>>1^i)&1 != 0
			for _, name := range []string{"web.net2.mesh.internal.", "web.net1.mesh.internal.", "cache.net2.", "www.net1."} {
				m, _ := query(name, dns.TypeA).Pack()
				if !sameAnswer(t, s, b, f, m, hostClient) {
					t.Errorf("%v %s: not answered by the fast path", scope, name)
				}
			}
		}
	}
}

// R6.6: a listener's packed answers are bounded, and right whatever was dropped.
func TestFastPathIsBounded(t *testing.T) {
	const names = 20_000 // times 100 bytes and more
	s, b := serve(t, many(t, names).self, []string{"net1"}, func(c *Config) { c.FastBytes = 1 })
	f := newFastPath(b)
	most := 0
	for i := range names {
		m, _ := query(fmt.Sprintf("svc%06d.", i), dns.TypeA).Pack()
		if i%1000 == 0 && !sameAnswer(t, s, b, f, m, hostClient) || len(f.ask(m, hostAddr)) == 0 {
			t.Fatalf("name %d is not answered", i)
		}
		most = max(most, f.fixed.bytes())
	}
	if most > minFastBytes+2*pageSize {
		t.Errorf("%d bytes", most)
	}
}

// volley asks all names at once and checks that each gets its reply.
func volley(t *testing.T, c net.Conn, names []string, base uint16) {
	for i, n := range names {
		m := query(n, dns.TypeA)
		m.Id = base | uint16(i)
		p, _ := m.Pack()
		if _, err := c.Write(p); err != nil {
			t.Error(err)
			return
		}
	}
	buf := make([]byte, 2048)
	for range names {
		n, err := c.Read(buf)
		if err != nil {
			t.Error(err)
			return
		}
		var r dns.Msg
		if err := r.Unpack(buf[:n]); err != nil {
			t.Error(err)
			return
		}
		if i := int(r.Id & 0x3f); r.Id&^0x3f != base || i >= len(names) || r.Question[0].Name != names[i] {
			t.Errorf("reply %v", &r)
			return
		}
	}
}
