package resolver

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/state"
)

// render writes a result in the syntax of testdata/names.txt.
func render(r *zoneResult) []string {
	switch {
	case r.Forward:
		return []string{"FORWARD"}
	case r.Rcode == dns.RcodeNameError:
		return []string{"NXDOMAIN " + r.Ns[0].(*dns.SOA).Hdr.Name}
	case len(r.Answer) == 0:
		return []string{"NODATA " + r.Ns[0].(*dns.SOA).Hdr.Name}
	}
	out := texts(r.Answer)
	for _, t := range texts(r.Extra) {
		out = append(out, "+"+t)
	}
	for i := range out {
		out[i] = sortLists(out[i])
	}
	slices.Sort(out)
	return out
}

// sortLists sorts the values of each list with commas in the text of a record,
// such as the addresses of an ipv4hint.
func sortLists(record string) string {
	return commaList.ReplaceAllStringFunc(record, func(list string) string {
		values := strings.Split(list, ",")
		slices.Sort(values)
		return strings.Join(values, ",")
	})
}

var commaList = regexp.MustCompile(`[^\s"=,]+(,[^\s"=,]+)+`)

// nameCase is one case of testdata/names.txt.
type nameCase struct {
	scope, name, qtype string
	want               []string
}

// namesText returns the lines of testdata/names.txt that are no comments.
func namesText(tb testing.TB) (lines []string) {
	tb.Helper()
	text, err := os.ReadFile("testdata/names.txt")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

func nameCases(tb testing.TB) []nameCase {
	tb.Helper()
	var cases []nameCase
	for _, line := range namesText(tb) {
		switch line[0] {
		case '@':
		case '>':
			f := strings.Fields(line)
			cases = append(cases, nameCase{scope: f[1], name: f[2], qtype: f[3]})
		default:
			c := &cases[len(cases)-1]
			c.want = append(c.want, sortLists(line))
			slices.Sort(c.want)
		}
	}
	return cases
}

// R1–R4, V7: every name form.
func TestNames(t *testing.T) {
	z := standard(t).zone()
	for _, c := range nameCases(t) {
		t.Run(c.scope+"/"+c.name+"/"+c.qtype, func(t *testing.T) {
			r := z.answer(zoneQuery{
				Name: c.name, Type: dns.StringToType[c.qtype], Scope: scopeOf(c.scope),
				Local: netip.MustParseAddr("127.0.0.11"),
			})
			if got := render(&r); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// R1: a shared listener tells the scope by the client's address.
func TestScopeOf(t *testing.T) {
	z := standard(t).zone()
	for client, want := range map[string]string{
		"172.16.1.1": "networks net1", "172.16.2.1": "networks net2", "fd99::2": "networks net1",
		"::ffff:172.16.1.1": "networks net1",
		"172.16.1.99":       "networks net1, net2",
		"127.0.0.1":         clientScope{Host: true}.String(), "10.1.0.5": clientScope{Host: true}.String(),
	} {
		if got := z.scopeOf(netip.MustParseAddr(client)).String(); got != want {
			t.Errorf("%s: %s, want %s", client, got, want)
		}
	}
}

// R5: without a working load balancer vip services answer like dnsrr.
func TestVIPsUnusable(t *testing.T) {
	z := standard(t).zone()
	z.VIPsUsable = func(string) bool { return false }
	for name, want := range map[string]int{"web.": 2, "www.net1.": 2, "four.": 1, "idle.": 0} {
		r := z.answer(zoneQuery{Name: name, Type: dns.TypeA, Scope: scopeOf("net1")})
		if len(r.Answer) != want {
			t.Errorf("%s: %v, want %d tasks", name, r.Answer, want)
		}
	}
}

// S9: the serving ones come first, then the suspected ones; both are shuffled,
// here with weights 3 and 1.
func TestShuffle(t *testing.T) {
	z := standard(t).zone()
	firsts := map[string]int{}
	for seed := range uint64(200) {
		r := z.answer(zoneQuery{Name: "db.", Type: dns.TypeA, Scope: scopeOf("net1"), Seed: seed})
		firsts[r.Answer[0].(*dns.A).A.String()]++
		if last := r.Answer[2].(*dns.A).A.String(); last != "172.16.1.23" {
			t.Fatalf("seed %d: the suspected task is not last: %v", seed, r.Answer)
		}
	}
	if len(firsts) != 2 || firsts["172.16.1.21"] < 110 || firsts["172.16.1.22"] < 20 {
		t.Errorf("first answers: %v", firsts)
	}
}

// Each task comes first as often as its weight says, and none is left out.
func TestWeights(t *testing.T) {
	w := newWorld(t, "net1")
	w.commit("a", "net1", dnsrr("db"),
		task(t, "one db 1 172.16.1.1 - weight=1"), task(t, "three db 2 172.16.1.2 - weight=3"),
		task(t, "six db 3 172.16.1.3 - weight=6"))
	z, firsts, seconds := w.zone(), map[string]int{}, map[string]int{}
	const n = 10_000
	for seed := range uint64(n) {
		r := z.answer(zoneQuery{Name: "db.", Type: dns.TypeA, Scope: scopeOf("net1"), Seed: seed})
		if len(r.Answer) != 3 {
			t.Fatalf("%v", r.Answer)
		}
		firsts[addrOf(r.Answer[0])]++
		seconds[addrOf(r.Answer[1])]++
	}
	// 0.1, 0.3, 0.6 for the first place; the standard deviation is below 50.
	for ip, want := range map[string]int{"172.16.1.1": n / 10, "172.16.1.2": 3 * n / 10, "172.16.1.3": 6 * n / 10} {
		if d := firsts[ip] - want; d < -250 || d > 250 {
			t.Errorf("%s is first %d times, want about %d", ip, firsts[ip], want)
		}
	}
	// Second is the first of what is left: .1 after .2 or .3 is 0.3·1/7 + 0.6·1/4.
	if d := seconds["172.16.1.1"] - 1929; d < -250 || d > 250 {
		t.Errorf("%v", seconds)
	}
}

// S8: a service's own TTL goes over the zone's, in every form; negative answers keep theirs.
func TestServiceTTL(t *testing.T) {
	w := standard(t)
	c := state.SettingsClaim{Settings: state.Settings{TTL: time.Minute}, Lamport: 1}
	w.commit("a", "net1", state.Change{Kind: state.KindSettings, Key: "web", Body: string(state.AppendSettings(nil, c))})
	z := w.zone()
	for name, qtype := range map[string]uint16{
		"web.": dns.TypeA, "www.": dns.TypeAAAA, "tasks.web.": dns.TypeA, "nearest.web.": dns.TypeA, "web-one.": dns.TypeA,
		"_http._tcp.web.": dns.TypeSRV, "5.0.1.10.in-addr.arpa.": dns.TypePTR, "1.1.16.172.in-addr.arpa.": dns.TypePTR,
	} {
		r := z.answer(zoneQuery{Name: name, Type: qtype, Scope: scopeOf("net1")})
		if len(r.Answer) == 0 {
			t.Errorf("%s: no answer", name)
		}
		for _, rr := range slices.Concat(r.Answer, r.Extra) {
			if rr.Header().Ttl != 60 {
				t.Errorf("%s: %v, want a TTL of 60", name, rr)
			}
		}
	}
	if r := z.answer(zoneQuery{Name: "db.", Type: dns.TypeA, Scope: scopeOf("net1")}); r.Answer[0].Header().Ttl != 5 {
		t.Errorf("another service: %v", r.Answer[0])
	}
	if r := z.answer(zoneQuery{Name: "web.", Type: dns.TypeTXT, Scope: scopeOf("net1")}); r.Ns[0].Header().Ttl != 2 {
		t.Errorf("NODATA: %v", r.Ns)
	}
}

// Several tasks with one address, as on a host's network: the PTR is the same
// whatever came first, and stays while that task does.
func TestReverseIsStable(t *testing.T) {
	ids := []string{"b1", "a1", "c1"}
	for range len(ids) {
		w := newWorld(t, "net1")
		for _, id := range ids {
			w.commit("a", "net1", task(t, id+" web 1 192.0.2.9 -"))
		}
		r := w.zone().answer(zoneQuery{Name: "9.2.0.192.in-addr.arpa.", Type: dns.TypePTR, Scope: scopeOf("net1")})
		if got := texts(r.Answer); len(got) != 1 || !strings.HasSuffix(got[0], " web.1.a1.net1.mesh.internal.") {
			t.Errorf("%v: %v", ids, got)
		}
		ids = append(ids[1:], ids[0])
	}
}

// R1: bare names are looked up in the order of the listener's networks; the
// first that knows the name answers, even with nothing.
func TestNetworkOrder(t *testing.T) {
	z := standard(t).zone()
	for scope, want := range map[string]string{"net1,net2": "10.1.0.5", "net2,net1": "10.2.0.5"} {
		r := z.answer(zoneQuery{Name: "web.", Type: dns.TypeA, Scope: scopeOf(scope)})
		if len(r.Answer) != 1 || addrOf(r.Answer[0]) != want {
			t.Errorf("%s: %v, want %s", scope, r.Answer, want)
		}
		r = z.answer(zoneQuery{Name: "web.net1.", Type: dns.TypeA, Scope: scopeOf(scope)})
		if len(r.Answer) != 1 || addrOf(r.Answer[0]) != "10.1.0.5" {
			t.Errorf("%s: web.net1. is %v", scope, r.Answer)
		}
	}
}

// R2: nearest.<service> sorts by the round-trip time.
func TestNearest(t *testing.T) {
	z := standard(t).zone()
	z.RTT = func(n state.NodeID) (time.Duration, bool) {
		return map[state.NodeID]time.Duration{"b": time.Millisecond, "d": 0}[n], n != "a"
	}
	for seed := range uint64(20) {
		r := z.answer(zoneQuery{Name: "nearest.db.", Type: dns.TypeA, Scope: scopeOf("net1"), Seed: seed})
		var got []string
		for _, rr := range r.Answer {
			got = append(got, rr.(*dns.A).A.String())
		}
		if want := []string{"172.16.1.22", "172.16.1.21", "172.16.1.23"}; !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

// The limit leaves answers out and says so; serving ones stay.
func TestLimit(t *testing.T) {
	z := standard(t).zone()
	r := z.answer(zoneQuery{Name: "db.", Type: dns.TypeA, Scope: scopeOf("net1"), Limit: 2})
	if len(r.Answer) != 2 || !r.More {
		t.Errorf("%d answers, more %v", len(r.Answer), r.More)
	}
	r = z.answer(zoneQuery{Name: "db.", Type: dns.TypeA, Scope: scopeOf("net1"), Limit: 3})
	if len(r.Answer) != 3 || r.More {
		t.Errorf("%d answers, more %v", len(r.Answer), r.More)
	}
}

// R3: a name beneath a network that is also a public suffix can be forwarded.
func TestSharedSuffix(t *testing.T) {
	z := standard(t).zone()
	z.SharedSuffixes, z.ForwardBare = []string{"net1"}, true
	for name, want := range map[string]bool{
		"other.net1.": true, "web.net1.": false, "other.": true,
		"other.net1.mesh.internal.": false,
	} {
		if r := z.answer(zoneQuery{Name: name, Type: dns.TypeA, Scope: scopeOf("net1")}); r.Forward != want {
			t.Errorf("%s: forward %v, want %v", name, r.Forward, want)
		}
	}
}

// R4: until the first sync an unknown local name may yet appear.
func TestWaiting(t *testing.T) {
	w := newWorld(t)
	w.self.Join("net1")
	z := w.zone()
	for name, want := range map[string]int{
		"web.": 1, "web.net1.mesh.internal.": 1, "web.net1.": 1, "example.com.": 0,
		"net1.mesh.internal.": 0, "web.net2.mesh.internal.": 0,
	} {
		if r := z.answer(zoneQuery{Name: name, Type: dns.TypeA, Scope: scopeOf("net1")}); len(r.Waiting) != want {
			t.Errorf("%s: waits for %d views, want %d", name, len(r.Waiting), want)
		}
	}
}

// R4: a service whose tasks have not arrived yet is waited for like an unknown name.
func TestWaitingForTasks(t *testing.T) {
	w := newWorld(t)
	w.self.Join("net1").SetDef(state.NetworkDef{Name: "net1", Subnet4: netip.MustParsePrefix("10.1.0.0/24")})
	w.commit("a", "net1", dnsrr("db"), vip("web", "10.1.0.5", ""))
	for name, want := range map[string]int{"db.": 1, "tasks.web.": 1, "web.": 0} {
		if r := w.zone().answer(zoneQuery{Name: name, Type: dns.TypeA, Scope: scopeOf("net1")}); len(r.Waiting) != want {
			t.Errorf("%s: waits for %d views, want %d", name, len(r.Waiting), want)
		}
	}
}

func TestExplain(t *testing.T) {
	z := standard(t).zone()
	z.Notes = func(network, service string) []string { return []string{"1 task hidden because node c is dead"} }
	e, err := z.Explain("net1", "www", "a")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range e.Steps {
		all = append(all, s.Text)
	}
	want := "service web: mode vip, VIP 10.1.0.5, VIP fd00:1::5, 2 tasks serving, 1 task draining, 1 task unready, 1 " +
		"task hidden because node c is dead"
	if !slices.Contains(all, want) || e.Outcome != "local" || e.Rcode != "NOERROR" || len(e.Answer) != 1 {
		t.Errorf("%+v", e)
	}
	if e, _ := z.Explain("net1", "example.com", ""); e.Outcome != "forwarded" || e.Rcode != "" {
		t.Errorf("%+v", e)
	}
	if e, err := z.Explain("net1", "10.1.0.5", "PTR"); err != nil || len(e.Answer) != 1 ||
		!strings.HasSuffix(e.Answer[0], "PTR web.net1.mesh.internal.") {
		t.Errorf("%+v, %v", e, err)
	}
	for _, bad := range [][3]string{{"net9", "web", "A"}, {"net1", "web", "QQ"}, {"net1", "", "A"}} {
		if _, err := z.Explain(bad[0], bad[1], bad[2]); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// Property: every address and name in an answer is in the view of the scope.
func TestAnswersAreOfTheView(t *testing.T) {
	w := standard(t)
	z := w.zone()
	addrs := map[string]bool{}
	v := w.self.View("net1")
	for _, s := range v.Services() {
		members, _ := s.Serving()
		for _, e := range members.AppendTo(s.Members.AppendTo(nil)) {
			addrs[e.Addr4().String()], addrs[e.Addr6().String()] = true, true
		}
		addrs[s.VIP4.String()], addrs[s.VIP6.String()] = true, true
	}
	for _, c := range nameCases(t) {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			r := z.answer(zoneQuery{Name: c.name, Type: qtype, Scope: scopeOf("net1"), Seed: 7})
			for _, rr := range slices.Concat(r.Answer, r.Extra) {
				if ip := addrOf(rr); ip != "" && !addrs[ip] && !strings.Contains(c.name, "localhost") {
					t.Errorf("%s: %s is not in net1", c.name, rr)
				}
			}
		}
	}
}

func addrOf(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.A:
		return rr.A.String()
	case *dns.AAAA:
		return rr.AAAA.String()
	}
	return ""
}
