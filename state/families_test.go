package state

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestVIPOfAFamilyWithoutTasks covers V12: what a service has no task for has no
// address, claimed or not; tasks of a dead host, and a service without any task,
// change nothing.
func TestVIPOfAFamilyWithoutTasks(t *testing.T) {
	vip4, vip6, old6 := netip.MustParseAddr("10.9.0.5"), netip.MustParseAddr("fd09::5"), netip.MustParseAddr("fd09::6")
	def := NetworkDef{
		Name: "net", Subnet4: netip.MustParsePrefix("10.9.0.0/24"),
		Subnet6: netip.MustParsePrefix("fd09::/64"), Birth: 1,
	}
	four, six := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd01::1")
	a, b := pair(DefaultLimits())
	b.SetDef(def)
	b.SetLiveness("a", Alive)
	now := time.Duration(0)
	see := func(when string, want4, want6 netip.Addr, others ...netip.Addr) {
		t.Helper()
		pull(t, a, b, "a", 1<<20)
		now += time.Minute
		b.Publish(now)
		s := b.View().Service("web")
		if s == nil || s.VIP4 != want4 || s.VIP6 != want6 || !slices.Equal(s.OtherVIPs, others) {
			t.Fatalf("V12: %s: %+v, want %s %s %s", when, s, want4, want6, others)
		}
		for _, vip := range []netip.Addr{vip4, vip6} {
			served := vip == want4 || vip == want6
			if m := b.View().ByIP(vip); (m.Service == s) != served {
				t.Fatalf("V12: %s: %s is said to be of %+v", when, vip, m.Service)
			}
			if b.Holder(vip) != "web" {
				t.Fatalf("V12: %s: %s is free for others", when, vip)
			}
		}
	}
	claim := func(key string, c VIPClaim) Change {
		return Change{Kind: KindVIP, Key: key, Body: string(AppendVIPClaim(nil, c))}
	}
	task := func(id string, e Endpoint) Change {
		return Change{Kind: KindEndpoint, Key: id, Group: "web", Body: string(AppendEndpoint(nil, &e))}
	}
	none := netip.Addr{}
	commit(t, a, claim("web", VIPClaim{VIP4: vip4, VIP6: vip6, Birth: 1}),
		claim("web~", VIPClaim{VIP6: old6, VIP4: netip.MustParseAddr("10.9.0.6"), Birth: 2}))
	see("without tasks", vip4, vip6, netip.MustParseAddr("10.9.0.6"), old6)
	commit(t, a, task("t4", Endpoint{IP4: four}), Change{Kind: KindVIP, Key: "web~", Delete: true})
	see("with an IPv4 task", vip4, none)
	commit(t, a, task("bad", Endpoint{IP6: netip.IPv6Loopback()}))
	see("with an IPv6 task that is not served", vip4, none)
	commit(t, a, Change{Kind: KindEndpoint, Key: "bad", Delete: true})
	see("without it", vip4, none)
	commit(t, a, task("t6", Endpoint{IP6: six, Health: HealthStarting}))
	see("with a task of each", vip4, vip6)
	commit(t, a, Change{Kind: KindEndpoint, Key: "t4", Delete: true})
	see("with an IPv6 task", none, vip6)
	commit(t, a, task("t6", Endpoint{IP6: six, IP4: four}))
	see("with a task of both", vip4, vip6)
	commit(t, a, task("t6", Endpoint{IP6: six, Draining: true}))
	see("with an IPv6 task that drains", none, vip6)
	b.SetLiveness("a", Dead)
	see("while its host is dead", none, vip6)
	b.SetLiveness("a", Alive)
	commit(t, a, Change{Kind: KindEndpoint, Key: "t6", Delete: true})
	see("without tasks again", vip4, vip6)
}

// TestConflictOfNobody covers V7: that the address of a service is another's is a
// conflict as long as somebody runs the service, who will claim another.
func TestConflictOfNobody(t *testing.T) {
	a, b := pair(DefaultLimits())
	b.SetDef(NetworkDef{Name: "net", Subnet4: netip.MustParsePrefix("10.9.0.0/24"), Birth: 1})
	b.SetLiveness("a", Alive)
	claim := func(service string, birth uint64) Change {
		c := VIPClaim{Service: service, VIP4: netip.MustParseAddr("10.9.0.5"), Birth: birth}
		return Change{Kind: KindVIP, Key: service, Body: string(AppendVIPClaim(nil, c))}
	}
	task := Change{
		Kind: KindEndpoint, Key: "t", Group: "late",
		Body: string(AppendEndpoint(nil, &Endpoint{IP4: netip.MustParseAddr("10.1.0.1")})),
	}
	commit(t, a, claim("early", 1), claim("late", 2), task)
	now := time.Duration(0)
	conflict := func() string {
		t.Helper()
		pull(t, a, b, "a", 1<<20)
		now += time.Minute
		b.Publish(now)
		return b.View().Service("late").Conflict
	}
	if conflict() == "" {
		t.Error("V7: a service whose address is another's, and which has a task, has no conflict")
	}
	b.SetLiveness("a", Dead)
	if got := conflict(); got != "" {
		t.Errorf("V7: while its host is dead: %s", got)
	}
	b.SetLiveness("a", Alive)
	if conflict() == "" {
		t.Error("V7: no conflict when the host is back")
	}
	task.Delete, task.Body = true, ""
	commit(t, a, task)
	if got := conflict(); got != "" {
		t.Errorf("V7: without a task: %s", got)
	}
}
