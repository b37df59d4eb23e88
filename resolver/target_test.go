package resolver

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"meshd/state"
)

// Rule L16: SRV tells where each task listens. Where VIPs are not balanced, the name of a
// service is not answered with tasks that do not listen at a port of it: clients would
// go to that port at the task's address. What asks for tasks by name gets them.
func TestTargets(t *testing.T) {
	w := newWorld(t, "net1")
	w.self.Table("net1").SetDef(state.NetworkDef{Name: "net1", Subnet4: netip.MustParsePrefix("10.96.0.0/24")})
	w.commit("a", "net1", vip("web", "10.96.0.1", ""), vip("gone", "10.96.0.2", ""), dnsrr("rr"),
		task(t, "t1 web 0 10.0.1.1 - port=http:80:8001 weight=3"), task(t, "t2 web 0 10.0.1.1 - port=http:80:8002"),
		task(t, "t3 web 0 10.0.1.3 - port=http:80"), task(t, "t4 web 0 10.0.1.4 - port=80:8004 port=443"),
		task(t, "m1 gone 0 10.0.2.1 - port=http:80:9001"), task(t, "m2 rr 0 10.0.3.1 - port=53:5353/udp"))
	usable := true
	s, b := serve(t, w.self, []string{"net1"}, func(c *Config) { c.VIPsUsable = func(string) bool { return usable } })
	f := newFastPath(b)
	for _, c := range []struct {
		name   string
		qtype  uint16
		usable bool
		want   string
	}{
		{"web.", dns.TypeA, true, "10.96.0.1"},
		{"web.", dns.TypeA, false, "10.0.1.3 10.0.1.4"},
		{"web.", dns.TypeAAAA, false, ""},
		{"tasks.web.", dns.TypeA, false, "10.0.1.1 10.0.1.3 10.0.1.4"},
		{"web.t1.", dns.TypeA, false, "10.0.1.1"},
		{"_http._tcp.web.", dns.TypeSRV, true, "t1:8001 t2:8002 t3:80"},
		{"_80._tcp.web.", dns.TypeSRV, false, "t1:8001 t2:8002 t3:80 t4:8004"},
		{"_443._tcp.web.", dns.TypeSRV, true, "t4:443"},
		{"_8001._tcp.web.", dns.TypeSRV, true, "NXDOMAIN"},
		{"gone.", dns.TypeA, true, "10.96.0.2"},
		{"gone.", dns.TypeA, false, ""},
		{"_http._tcp.gone.", dns.TypeSRV, false, "m1:9001"},
		{"rr.", dns.TypeA, false, "10.0.3.1"},
		{"_53._udp.rr.", dns.TypeSRV, false, "m2:5353"},
	} {
		usable = c.usable
		m, _ := query(c.name, c.qtype).Pack()
		if !sameAnswer(t, s, b, f, m, hostClient) && c.want != "NXDOMAIN" {
			t.Errorf("%s %s is not answered by the fast path", c.name, dns.Type(c.qtype))
		}
		r := s.zone.answer(zoneQuery{Name: c.name, Type: c.qtype, Scope: scopeOf("net1"), Trace: true})
		got := []string{}
		for _, rr := range r.Answer {
			got = append(got, placeIn(rr))
		}
		slices.Sort(got)
		text := strings.Join(got, " ")
		if r.Rcode == dns.RcodeNameError {
			text = "NXDOMAIN"
		}
		if text != c.want {
			t.Errorf("L16: %s %s, VIPs usable %v: %q, want %q", c.name, dns.Type(c.qtype), c.usable, text, c.want)
		}
		told := slices.ContainsFunc(r.Steps, func(s Step) bool { return s.Rule == "target" })
		if told != (c.name == "gone." && !c.usable) {
			t.Errorf("L16: %s, VIPs usable %v: the steps are %v", c.name, c.usable, r.Steps)
		}
	}
}

// placeIn returns the address of a record, or the task and port of an SRV.
func placeIn(rr dns.RR) string {
	srv, ok := rr.(*dns.SRV)
	if !ok {
		return addrOf(rr)
	}
	_, task, _ := strings.Cut(srv.Target, ".")
	task, _, _ = strings.Cut(task, ".")
	return fmt.Sprintf("%s:%d", task, srv.Port)
}
