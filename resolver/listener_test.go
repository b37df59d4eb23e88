package resolver

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// R5, L4: a listener's own VIPsUsable wins over the server's, on both paths.
func TestListenerHasItsOwnBalancer(t *testing.T) {
	w := standard(t)
	s, host := serve(t, w.self, []string{"net1"}, func(c *Config) { c.VIPsUsable = func(string) bool { return false } })
	var works atomic.Bool
	works.Store(true)
	own, err := s.Listen(Listener{
		Addr: loopback, Networks: []string{"net1"},
		VIPsUsable: func(string) bool { return works.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close(context.Background())
	vip := w.self.View("net1").Service("web").VIP4.String()
	first := func(b *Bound) string {
		t.Helper()
		m := query("web.", dns.TypeA)
		packed, _ := m.Pack()
		sameAnswer(t, s, b, newFastPath(b), packed, netip.MustParseAddrPort("127.0.0.1:9"))
		r := ask(t, b, "udp", m)
		if len(r.Answer) == 0 {
			t.Fatalf("no answer: %v", r)
		}
		return r.Answer[0].(*dns.A).A.String()
	}
	if got := first(own); got != vip {
		t.Errorf("the sandbox's listener answers %s, want the VIP %s", got, vip)
	}
	if got := first(host); got == vip {
		t.Errorf("the host's listener answers the VIP %s, which the host does not serve", got)
	}
	works.Store(false)
	if got := first(own); got == vip {
		t.Error("the sandbox's listener still answers the VIP that its balancer has lost")
	}
}

// R7.6: the processes of one sandbox have one share of the limits per client,
// not one with those of all the others.
func TestListenerNamesItsClients(t *testing.T) {
	w := standard(t)
	s, host := serve(t, w.self, []string{"net1"})
	box := netip.MustParseAddr("172.16.9.9")
	own, err := s.Listen(Listener{Addr: loopback, Networks: []string{"net1"}, Client: box})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close(context.Background())
	for _, tt := range []struct {
		bound      *Bound
		from, want string
	}{
		{own, "127.0.0.1:7", "172.16.9.9:7"},
		{own, "172.16.9.8:7", "172.16.9.8:7"},
		{host, "127.0.0.1:7", "127.0.0.1:7"},
	} {
		if got := tt.bound.clientOf(netip.MustParseAddrPort(tt.from)); got.String() != tt.want {
			t.Errorf("%s is %s, want %s", tt.from, got, tt.want)
		}
	}
}

// R9: a single label that no network knows is asked of the name server that the container
// had before, on both paths; what a network knows is not, and neither are other names.
func TestListenerAsksForBareNames(t *testing.T) {
	w := standard(t)
	var asked atomic.Int32
	var fail atomic.Bool
	s, host := serve(t, w.self, []string{"net1"})
	own, err := s.Listen(Listener{
		Addr: loopback, Networks: []string{"net1"},
		Bare: func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
			asked.Add(1)
			switch {
			case fail.Load():
				return nil, context.DeadlineExceeded
			case q.Question[0].Name != "redis.":
				return nil, nil
			}
			rr, _ := dns.NewRR("redis. 600 IN A 172.18.0.3")
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{rr}
			return m, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close(context.Background())
	for _, proto := range []string{"udp", "tcp"} {
		r := ask(t, own, proto, query("redis.", dns.TypeA))
		if len(r.Answer) != 1 || r.Answer[0].(*dns.A).A.String() != "172.18.0.3" {
			t.Errorf("%s: %v", proto, r)
		}
		if r := ask(t, own, proto, query("none.", dns.TypeA)); r.Rcode != dns.RcodeNameError {
			t.Errorf("%s: %v", proto, r)
		}
	}
	if n := asked.Swap(0); n != 4 {
		t.Errorf("asked %d times, want 4", n)
	}
	for _, name := range []string{"web.", "web.net1.", "nothere.net1."} {
		ask(t, own, "udp", query(name, dns.TypeA))
	}
	if r := ask(t, host, "udp", query("redis.", dns.TypeA)); r.Rcode != dns.RcodeNameError || asked.Load() != 0 {
		t.Errorf("asked %d times; on the host: %v", asked.Load(), r)
	}
	fail.Store(true)
	if r := ask(t, own, "udp", query("redis.", dns.TypeA)); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("no answer there: %v", r)
	}
}
