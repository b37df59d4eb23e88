package resolver

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// R7.1: upstreams are replaced while questions are answered; what is known of those
// that stay is kept, and a wrong list changes nothing.
func TestSetUpstreams(t *testing.T) {
	at := func(n byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 53) }
	s, _ := serve(t, standard(t).self, []string{"net1"}, func(c *Config) {
		c.Forward = ForwardConfig{
			Upstreams: []netip.AddrPort{at(1), at(2)},
			Domains:   map[string][]netip.AddrPort{"corp.example": {at(3)}},
		}
	})
	list := func() string {
		var out []string
		for _, u := range s.Upstreams() {
			out = append(out, fmt.Sprintf("%s%s:%s", u.Domain, u.Addr.Addr(), u.State))
		}
		return strings.Join(out, " ")
	}
	before := list()
	for range failsDown {
		s.forward.routes.Load().others.list[1].failed(time.Now())
	}
	if err := s.SetUpstreams([]netip.AddrPort{at(2), at(4)},
		map[string][]netip.AddrPort{"lab.example": {at(5)}}); err != nil {
		t.Fatal(err)
	}
	const want = "192.0.2.2:down 192.0.2.4:up lab.example192.0.2.5:up"
	if got := list(); got != want {
		t.Errorf("%s became %s, want %s", before, got, want)
	}
	if p := s.forward.routes.Load().serversFor("a.lab.example"); p.domain != "lab.example" {
		t.Errorf("a.lab.example is asked of %q", p.domain)
	}
	if err := s.SetUpstreams([]netip.AddrPort{{}}, nil); err == nil || list() != want {
		t.Errorf("a server without an address: %v, %s", err, list())
	}
	if err := s.SetUpstreams(nil, map[string][]netip.AddrPort{"x.example": {}}); err == nil || list() != want {
		t.Errorf("a domain without a server: %v, %s", err, list())
	}
}
