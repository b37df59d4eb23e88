package resolver

import (
	"bytes"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) lines(with string) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.b.String()) {
		if strings.Contains(line, with) {
			out = append(out, line)
		}
	}
	return out
}

// One of every so many questions is logged, whichever path answers it.
func TestQueryLog(t *testing.T) {
	for _, every := range []int{0, 1, 4} {
		var log syncBuffer
		_, b := serve(t, standard(t).self, []string{"net1"}, func(c *Config) { c.QueryLog, c.Log = every, quiet(&log) })
		const n = 24
		for i := range n {
			r := ask(t, b, []string{"udp", "udp", "tcp"}[i%3], query([]string{"web.", "nearest.web.", "nope."}[i/3%3],
				dns.TypeA))
			if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
				t.Error(r)
			}
		}
		want := 0
		if every > 0 {
			want = n / every
		}
		waitFor(t, func() bool { return len(log.lines("dns query")) >= want })
		lines := log.lines("dns query")
		if len(lines) != want {
			t.Errorf("one of %d: %d lines of %d questions", every, len(lines), n)
		}
		for _, l := range lines {
			for _, part := range []string{
				"client=127.0.0.1:", "name=", "type=A", "proto=", "outcome=", "rcode=", "answers=",
				"took=",
			} {
				if !strings.Contains(l, part) {
					t.Errorf("no %s in %s", part, l)
				}
			}
		}
	}
}

// A trace says which path, which upstreams, what the cache holds, how each try ended.
func TestTrace(t *testing.T) {
	up, asked := upstreamServer(t)
	dead := netip.MustParseAddrPort("127.0.0.1:9")
	s, b := serve(t, standard(t).self, []string{"net1"}, func(c *Config) {
		c.Forward = ForwardConfig{
			Upstreams: []netip.AddrPort{dead},
			Domains:   map[string][]netip.AddrPort{"example.com": {up}},
		}
	})
	trace := func(name, qtype string) (Explanation, string) {
		t.Helper()
		e, err := s.Trace(t.Context(), "net1", name, qtype)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, s := range e.Steps {
			text.WriteString(s.Rule + ": " + s.Text + "\n")
		}
		return e, text.String()
	}
	for _, c := range []struct{ name, qtype, want string }{
		{"web", "A", "path: the fast path"},
		{"web", "CAA", "path: the ordinary path"},
		{"nearest.web", "A", "path: the ordinary path"},
		{"www.example.com", "A", "upstreams: of the domain example.com: " + up.String() + " (up)"},
		{"www.example.com", "A", "cache: no answer"},
		{"www.example.com", "A", "upstream: " + up.String() + ": NOERROR, 1 answer after "},
		{"www.example.org", "A", "failed: "},
	} {
		if _, text := trace(c.name, c.qtype); !strings.Contains(text, c.want) {
			t.Errorf("%s %s: no %q in\n%s", c.name, c.qtype, c.want, text)
		}
	}
	ask(t, b, "udp", query("www.example.com.", dns.TypeA))
	before := asked.Load()
	e, text := trace("www.example.com", "A")
	if !strings.Contains(text, "cache: a fresh answer") || len(e.Answer) != 1 || e.Rcode != "NOERROR" ||
		asked.Load() != before+1 {
		t.Errorf("%+v\n%s", e, text)
	}
	if e, _ := trace("www.example.org", "A"); e.Rcode != "SERVFAIL" || e.Outcome != "failed" {
		t.Errorf("%+v", e)
	}
	if _, err := s.Trace(t.Context(), "nowhere", "web", "A"); err == nil {
		t.Error("a network that is not there")
	}
}
