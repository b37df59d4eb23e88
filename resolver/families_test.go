package resolver

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"meshd/state"
)

// V12, R3: a family in which a service has no task is NODATA, and where no VIP
// could lead to any of its tasks, the name is answered with them. The fast path
// follows each change.
func TestFamiliesOfTasks(t *testing.T) {
	w := newWorld(t, "net1", "net2")
	w.self.Table("net1").SetDef(state.NetworkDef{
		Name: "net1", Subnet4: netip.MustParsePrefix("10.1.0.0/24"),
		Subnet6: netip.MustParsePrefix("fd00:1::/64"), Birth: 1,
	})
	w.self.Table("net2").SetDef(state.NetworkDef{Name: "net2", Subnet4: netip.MustParsePrefix("10.2.0.0/24"), Birth: 1})
	w.commit("a", "net1", vip("web", "10.1.0.5", "fd00:1::5"))
	w.commit("a", "net2", vip("db", "10.2.0.5", ""))
	s, b := serve(t, w.self, []string{"net1", "net2"})
	f := newFastPath(b)
	z := w.zone()
	gone := func(id string) state.Change {
		return state.Change{Kind: state.KindEndpoint, Key: id, Delete: true}
	}
	for _, c := range []struct {
		network, name string
		change        state.Change
		four, six     []string
	}{
		{"net1", "web.", task(t, "t4 web 1 172.16.1.1 -"), []string{"10.1.0.5"}, nil},
		{"net1", "web.", task(t, "t6 web 2 - fd99::1"), []string{"10.1.0.5"}, []string{"fd00:1::5"}},
		{"net1", "web.", gone("t4"), nil, []string{"fd00:1::5"}},
		{"net1", "web.", gone("t6"), []string{"10.1.0.5"}, []string{"fd00:1::5"}},
		{"net2", "db.", task(t, "d6 db 1 - fd99::2"), nil, []string{"fd99::2"}},
		{"net2", "db.", task(t, "d4 db 2 172.16.1.2 -"), []string{"10.2.0.5"}, nil},
	} {
		w.commit("a", c.network, c.change)
		for qtype, want := range map[uint16][]string{dns.TypeA: c.four, dns.TypeAAAA: c.six} {
			for _, name := range []string{c.name, c.name + c.network + ".", c.name + c.network + ".mesh.internal."} {
				r := z.answer(zoneQuery{Name: name, Type: qtype, Scope: scopeOf(c.network)})
				var got []string
				for _, rr := range r.Answer {
					got = append(got, addrOf(rr))
				}
				if r.Rcode != dns.RcodeSuccess || !slices.Equal(got, want) {
					t.Errorf("V12: after %s: %s %s is %v (%s), want %v", c.change.Key, name, dns.Type(qtype), got,
						dns.RcodeToString[r.Rcode], want)
				}
				m, _ := query(name, qtype).Pack()
				if !sameAnswer(t, s, b, f, m, hostClient) {
					t.Errorf("R6: %s %s is not answered by the fast path", name, dns.Type(qtype))
				}
			}
		}
	}
}
