//go:build !race

package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// fakeNet is a set of upstreams in a bubble's time.
type fakeNet struct {
	mu    sync.Mutex
	asked []string // "server proto" in order
	// probes are the names that were asked to find loops; back reports whether
	// a server sent one back.
	probes []string
	back   func(server netip.AddrPort, m *dns.Msg) bool
	serve  map[string]func(m *dns.Msg, tcp bool) (after time.Duration, r *dns.Msg)
}

func (n *fakeNet) exchange(ctx context.Context, server netip.AddrPort, tcp bool, m *dns.Msg) (*dns.Msg, error) {
	n.mu.Lock()
	proto := "udp"
	if tcp {
		proto = "tcp"
	}
	if m.Question[0].Qtype == dns.TypeTXT { // a probe for a loop
		n.probes = append(n.probes, m.Question[0].Name)
		n.mu.Unlock()
		if n.back != nil && n.back(server, m) {
			return new(dns.Msg).SetRcode(m, dns.RcodeServerFailure), nil
		}
		return new(dns.Msg).SetRcode(m, dns.RcodeNameError), nil
	}
	n.asked = append(n.asked, server.Addr().String()+" "+proto)
	after, r := n.serve[server.Addr().String()](m, tcp)
	n.mu.Unlock()
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.C:
	}
	if r == nil {
		return nil, errors.New("connection refused")
	}
	return r, nil
}

func (n *fakeNet) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.asked)
}

type replyFunc = func(*dns.Msg, bool) (time.Duration, *dns.Msg)

func rcode(after time.Duration, code int) replyFunc {
	return func(m *dns.Msg, _ bool) (time.Duration, *dns.Msg) {
		r := new(dns.Msg).SetRcode(m, code)
		if code == dns.RcodeNameError {
			r.Ns = []dns.RR{rr("com. 60 IN SOA a. b. 1 2 3 4 60")}
		}
		return after, r
	}
}

func address(after time.Duration, ip string) replyFunc {
	return func(m *dns.Msg, _ bool) (time.Duration, *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		r.Answer = []dns.RR{rr(fmt.Sprintf("example.com. 20 IN A %s", ip))}
		return after, r
	}
}

func dead(after time.Duration) replyFunc {
	return func(*dns.Msg, bool) (time.Duration, *dns.Msg) { return after, nil }
}

func rr(text string) dns.RR {
	r, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return r
}

type fwd struct {
	*forwarder
	net *fakeNet
}

// forwarding makes a forwarder over upstreams 192.0.2.1, .2, ... that end with the test.
func forwarding(t *testing.T, change func(*ForwardConfig), servers ...replyFunc) *fwd {
	f := &fwd{net: &fakeNet{serve: map[string]replyFunc{}}}
	cfg := ForwardConfig{Exchange: f.net.exchange}
	for i, s := range servers {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		cfg.Upstreams = append(cfg.Upstreams, netip.AddrPortFrom(a, 53))
		f.net.serve[a.String()] = s
	}
	if change != nil {
		change(&cfg)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	f.forwarder = newForwarder(t.Context(), cfg, slog.New(slog.DiscardHandler), newMetrics(),
		func() []netip.AddrPort { return nil })
	return f
}

func (f *fwd) ask(client, name string) (*dns.Msg, queryOutcome) {
	return f.askType(client, name, dns.TypeA)
}

func (f *fwd) askType(client, name string, qtype uint16) (*dns.Msg, queryOutcome) {
	return f.resolve(question{msg: query(name, qtype), client: netip.AddrPortFrom(netip.MustParseAddr(client), 1)})
}

const me = "127.0.0.1"

// R7.2: how long a question takes and how it ends with good, slow and dead upstreams.
func TestFailover(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		servers []replyFunc
		rcode   int
		outcome queryOutcome
		atMost  time.Duration
	}{
		"first answers":        {[]replyFunc{address(10*ms, "1.1.1.1"), dead(0)}, 0, outcomeForwarded, 10 * ms},
		"first is slow":        {[]replyFunc{address(time.Minute, "1.1.1.1"), address(10*ms, "2.2.2.2")}, 0, outcomeForwarded, 310 * ms},
		"first refuses":        {[]replyFunc{dead(1 * ms), address(10*ms, "2.2.2.2")}, 0, outcomeForwarded, 11 * ms},
		"first is SERVFAIL":    {[]replyFunc{rcode(5*ms, dns.RcodeServerFailure), address(10*ms, "2.2.2.2")}, 0, outcomeForwarded, 15 * ms},
		"first is REFUSED":     {[]replyFunc{rcode(5*ms, dns.RcodeRefused), rcode(5*ms, dns.RcodeNameError)}, dns.RcodeNameError, outcomeForwarded, 10 * ms},
		"all SERVFAIL":         {[]replyFunc{rcode(5*ms, dns.RcodeServerFailure), rcode(5*ms, dns.RcodeServerFailure)}, dns.RcodeServerFailure, outcomeForwarded, 20 * ms},
		"all dead":             {[]replyFunc{dead(1 * ms), dead(1 * ms)}, dns.RcodeServerFailure, outcomeFailed, 4 * ms},
		"all silent":           {[]replyFunc{dead(time.Hour), dead(time.Hour)}, dns.RcodeServerFailure, outcomeFailed, 2300 * ms},
		"one, silent":          {[]replyFunc{dead(time.Hour)}, dns.RcodeServerFailure, outcomeFailed, 2000 * ms},
		"one, the second time": {[]replyFunc{everySecond(address(ms, "1.1.1.1"))}, 0, outcomeForwarded, 301 * ms},
		"none":                 {nil, dns.RcodeServerFailure, outcomeFailed, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := forwarding(t, func(c *ForwardConfig) { c.ResolvConf = "testdata/none" }, c.servers...)
				start := time.Now()
				r, o := f.ask(me, "example.com.")
				if r.Rcode != c.rcode || o != c.outcome || time.Since(start) > c.atMost {
					t.Errorf("rcode %d, outcome %s after %s", r.Rcode, o, time.Since(start))
				}
			})
		})
	}
}

func everySecond(f replyFunc) replyFunc {
	n := 0
	return func(m *dns.Msg, tcp bool) (time.Duration, *dns.Msg) {
		if n++; n%2 == 1 {
			return time.Hour, nil
		}
		return f(m, tcp)
	}
}

// R7.3: a failing upstream is asked last, and tried again after a while.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := forwarding(t, func(c *ForwardConfig) { c.CacheEntries = -1 }, dead(time.Hour),
			address(time.Millisecond, "2.2.2.2"))
		for range failsDown {
			f.ask(me, "example.com.")
		}
		synctest.Wait()
		start := time.Now()
		f.ask(me, "example.com.")
		if d := time.Since(start); d != time.Millisecond {
			t.Errorf("the dead upstream still costs %s", d)
		}
		time.Sleep(downFor)
		start = time.Now()
		f.ask(me, "example.com.")
		if d := time.Since(start); d <= 300*time.Millisecond {
			t.Errorf("the upstream was not tried again: %s", d)
		}
	})
}

// R7.5, R7.6: identical questions in flight are one; the limits drop what is over them.
func TestCoalescingAndLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := forwarding(t, func(c *ForwardConfig) { c.MaxClient, c.Max = 3, 5 }, address(100*time.Millisecond, "1.1.1.1"))
		outcomes := make(chan queryOutcome, 10)
		start := func(client, name string) {
			go func() {
				_, o := f.ask(client, name)
				outcomes <- o
			}()
			synctest.Wait()
		}
		start(me, "example.com.")
		start(me, "EXAMPLE.com.")
		start(me, "example.com.")
		if n := f.net.count(); n != 1 {
			t.Errorf("%d queries for one question", n)
		}
		start(me, "four.example.com.")
		start("127.0.0.2", "four.example.com.")
		start("127.0.0.3", "five.example.com.")
		count := map[queryOutcome]int{}
		for range 6 {
			count[<-outcomes]++
		}
		if count[outcomeForwarded] != 4 || count[outcomeDropped] != 2 || f.met.get(countCoalesced) != 2 {
			t.Errorf("%v, %d coalesced", count, f.met.get(countCoalesced))
		}
		if f.waiting != 0 || len(f.clients) != 0 || len(f.calls) != 0 {
			t.Errorf("left over: %d %v %v", f.waiting, f.clients, f.calls)
		}
	})
}

// R7.7: fresh answers come from the cache with their TTL counted down; expired
// ones serve while no upstream answers (RFC 8767).
func TestCacheAndStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := forwarding(t, nil, address(time.Millisecond, "1.1.1.1"))
		f.ask(me, "example.com.")
		time.Sleep(7 * time.Second)
		r, o := f.ask(me, "Example.COM.")
		if o != outcomeCached || r.Answer[0].Header().Ttl != 13 || r.Answer[0].Header().Name != "Example.COM." {
			t.Errorf("%s %v", o, r)
		}
		f.net.serve["192.0.2.1"] = dead(time.Hour)
		time.Sleep(20 * time.Second)
		start := time.Now()
		r, o = f.ask(me, "example.com.")
		if o != outcomeStale || len(r.Answer) != 1 || r.Answer[0].Header().Ttl != staleTTL ||
			time.Since(start) != staleAfter {
			t.Errorf("after %s: %s %v", time.Since(start), o, r)
		}
		f.net.serve["192.0.2.1"] = rcode(time.Millisecond, dns.RcodeServerFailure)
		time.Sleep(20 * time.Second)
		if r, o = f.ask(me, "example.com."); o != outcomeStale {
			t.Errorf("SERVFAIL: %s %v", o, r)
		}
		asked := f.net.count()
		if _, o = f.ask(me, "example.com."); o != outcomeStale || f.net.count() != asked {
			t.Errorf("just after a failure: %s, %d questions", o, f.net.count()-asked)
		}
		time.Sleep(recheckTime)
		f.net.serve["192.0.2.1"] = rcode(time.Millisecond, dns.RcodeNameError)
		if r, o = f.ask(me, "example.com."); o != outcomeForwarded || r.Rcode != dns.RcodeNameError {
			t.Errorf("the name is gone: %s %v", o, r)
		}
		if r, o = f.ask(me, "example.com."); o != outcomeCached || r.Rcode != dns.RcodeNameError {
			t.Errorf("negative cache: %s %v", o, r)
		}
		time.Sleep(2 * time.Hour)
		f.net.serve["192.0.2.1"] = dead(0)
		if r, o = f.ask(me, "example.com."); o != outcomeFailed {
			t.Errorf("two hours later: %s %v", o, r)
		}
	})
}

// A failure is remembered for a moment, so that a client's second try does not
// wait as long as the first (RFC 9520), and no longer.
func TestFailureIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := forwarding(t, nil, dead(time.Hour))
		for range 2 {
			start := time.Now()
			if _, o := f.ask(me, "example.com."); o != outcomeFailed || time.Since(start) != 2*time.Second {
				t.Errorf("%s after %s", o, time.Since(start))
			}
			asked, start := f.net.count(), time.Now()
			if r, o := f.ask(me, "example.com."); o != outcomeFailed || r.Rcode != dns.RcodeServerFailure ||
				time.Since(start) != 0 || f.net.count() != asked {
				t.Errorf("again: %s after %s, %v", o, time.Since(start), r)
			}
			time.Sleep(failureTime)
		}
		f.net.serve["192.0.2.1"] = address(time.Millisecond, "1.1.1.1")
		if r, o := f.ask(me, "example.com."); o != outcomeForwarded || len(r.Answer) != 1 {
			t.Errorf("the upstream is back: %s %v", o, r)
		}
	})
}

// A truncated reply is asked again over TCP; a server that knows no EDNS without it.
func TestTCPAndNoEDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := forwarding(t, nil, func(m *dns.Msg, tcp bool) (time.Duration, *dns.Msg) {
			r := new(dns.Msg).SetReply(m)
			switch {
			case m.IsEdns0() != nil:
				r.Rcode = dns.RcodeFormatError
			case !tcp:
				r.Truncated = true
			default:
				r.Answer = []dns.RR{rr("example.com. 20 IN A 1.1.1.1")}
			}
			return 0, r
		})
		r, _ := f.ask(me, "example.com.")
		if len(r.Answer) != 1 || r.Truncated || len(f.net.asked) != 3 || f.net.asked[2] != "192.0.2.1 tcp" {
			t.Errorf("%v after %v", r, f.net.asked)
		}
	})
}

// The cache stays within its bounds.
func TestCacheBounds(t *testing.T) {
	c := newCache(3, 1<<20)
	put := func(i int) {
		m := query(fmt.Sprintf("n%d.", i), dns.TypeA)
		c.put(keyOf(m), m, time.Now(), time.Minute, 0)
	}
	for i := range 5 {
		put(i)
		c.get(keyOf(query("n0.", dns.TypeA)), time.Now())
	}
	if c.get(keyOf(query("n0.", dns.TypeA)), time.Now()).msg == nil {
		t.Error("the entry in use was evicted")
	}
	if n, bytes := c.size(); n != 3 || bytes <= 0 {
		t.Errorf("%d entries of %d bytes", n, bytes)
	}
	c = newCache(100, 100)
	for i := range 9 {
		put(i)
	}
	if _, bytes := c.size(); bytes > 100 {
		t.Errorf("%d bytes", bytes)
	}
}
