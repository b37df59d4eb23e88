package lb_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meshd/lb"
	"meshd/state"
)

// dump formats a table for comparison: one line per pool and service.
func dump(t *lb.Table) string {
	var lines []string
	for _, p := range t.Pools {
		lines = append(lines, fmt.Sprintf("pool %s src %s %s", p.Prefix, p.Src, p.Network))
	}
	slices.Sort(lines)
	for _, k := range t.Keys() {
		s := t.Services[k]
		var line strings.Builder
		fmt.Fprintf(&line, "%s %s.%s %s", k, s.Name, s.Network, s.Scheduler)
		if s.Affinity > 0 {
			line.WriteString(" affinity " + s.Affinity.String())
		}
		for _, b := range s.Backends {
			fmt.Fprintf(&line, " %s*%d", b.Addr, b.Weight)
		}
		lines = append(lines, line.String())
	}
	return strings.Join(lines, "\n")
}

func (w *world) plan(networks ...string) *lb.Table {
	node := lb.Node{Src4: netip.MustParseAddr("192.0.2.1"), Src6: netip.MustParseAddr("2001:db8::1")}
	var views []state.View
	for _, n := range networks {
		views = append(views, w.store.View(n))
	}
	return lb.Plan(node, views)
}

const pools = "pool 10.96.0.0/16 src 192.0.2.1 net\npool fd96::/64 src 2001:db8::1 net\n"

func TestPlan(t *testing.T) {
	six := netip.MustParseAddr("fd01::1")
	for _, c := range []struct {
		name string
		say  func(w *world) []state.Change
		want string
	}{
		{"L2: pools without services", func(w *world) []state.Change { return nil }, strings.TrimSpace(pools)},
		{"L3: declared ports", func(w *world) []state.Change {
			return append(w.tasks("web", 2, "80/tcp", "53/udp"), vip("web", "10.96.0.1"))
		}, pools + "10.96.0.1:53/udp web.net wrr 10.0.0.1:53*1 10.0.0.2:53*1\n10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*1 " +
			"10.0.0.2:80*1"},
		{"L3: no ports, all ports", func(w *world) []state.Change {
			return append(w.tasks("web", 1), vip("web", "10.96.0.1"))
		}, pools + "10.96.0.1:all/tcp web.net wrr 10.0.0.1:0*1\n10.96.0.1:all/udp web.net wrr 10.0.0.1:0*1"},
		{"L3, L5: of all ports, TCP drains and UDP does not", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 1),
				w.change(state.Endpoint{ID: "d", Service: "web", IP4: netip.MustParseAddr("10.0.0.2"), Draining: true}),
				vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:all/tcp web.net wrr 10.0.0.1:0*1 10.0.0.2:0*0\n10.96.0.1:all/udp web.net wrr 10.0.0.1:0*1"},
		{"L6: scheduler, affinity, weights", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 5, "80/tcp"), w.task("b", "web", "10.0.0.2", 1, "80/tcp"), vip("web", "10.96.0.1"),
				settings("web", state.Settings{Scheduler: "wlc", Affinity: time.Minute}),
			}
		}, pools + "10.96.0.1:80/tcp web.net wlc affinity 1m0s 10.0.0.1:80*5 10.0.0.2:80*1"},
		{"dnsrr gives nothing", func(w *world) []state.Change {
			return append(w.tasks("web", 1, "80"), vip("web", "10.96.0.1"),
				settings("web", state.Settings{Mode: state.ModeDNSRR}))
		}, strings.TrimSpace(pools)},
		{"C8: failing tasks are left out", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 1, "80/tcp"), w.sick("b", "web", "10.0.0.2", state.HealthFailing, "80/tcp"),
				vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*1"},
		{"C8: with nothing else they are served, but not what starts or drains", func(w *world) []state.Change {
			return []state.Change{
				w.change(state.Endpoint{
					ID: "d", Service: "web", IP4: netip.MustParseAddr("10.0.0.1"), Draining: true,
					Health: state.HealthFailing,
				}, "80/tcp"),
				w.sick("b", "web", "10.0.0.2", state.HealthFailing, "80/tcp"),
				w.sick("c", "web", "10.0.0.3", state.HealthStarting, "80/tcp"), vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*0 10.0.0.2:80*1"},
		{"L5: draining has weight 0, but for UDP is left out; unready is left out", func(w *world) []state.Change {
			return []state.Change{
				w.change(state.Endpoint{ID: "d", Service: "web", IP4: netip.MustParseAddr("10.0.0.1"), Draining: true}, "80/tcp",
					"53/udp"),
				w.change(state.Endpoint{ID: "u", Service: "web", IP4: netip.MustParseAddr("10.0.0.2"), Health: state.HealthStarting},
					"80/tcp", "53/udp"),
				vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:53/udp web.net wrr\n10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*0"},
		{"families do not mix", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 1, "80/tcp"),
				w.change(state.Endpoint{ID: "b", Service: "web", IP6: six}, "80/tcp"), vip("web", "fd96::5"),
			}
		}, pools + "[fd96::5]:80/tcp web.net wrr [fd01::1]:80*1"},
		{"tasks that share an address share a backend", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 2, "80/tcp"), w.task("b", "web", "10.0.0.1", 3, "80/tcp"),
				vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*5"},
		{"L12: tasks get connections at the ports that they declare", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 1, "80/tcp"), w.task("b", "web", "10.0.0.2", 1, "80/tcp", "8080/tcp"),
				w.task("c", "web", "10.0.0.3", 1, "8080/tcp", "80/udp"), vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*1 10.0.0.2:80*1\n10.96.0.1:80/udp web.net wrr 10.0.0.3:80*1\n" +
			"10.96.0.1:8080/tcp web.net wrr 10.0.0.2:8080*1 10.0.0.3:8080*1"},
		{"L12: tasks without ports are at all, those that others declare and the rest", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 1), w.task("b", "web", "10.0.0.2", 1, "80/tcp"),
				w.task("c", "web", "10.0.0.3", 1, "81/tcp"),
				vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:all/tcp web.net wrr 10.0.0.1:0*1\n10.96.0.1:all/udp web.net wrr 10.0.0.1:0*1\n" +
			"10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*1 10.0.0.2:80*1\n10.96.0.1:81/tcp web.net wrr 10.0.0.1:81*1 " +
			"10.0.0.3:81*1"},
		{"L12: two names of one port are one port, on a shared address too", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 1, "http:80/tcp"), w.task("b", "web", "10.0.0.2", 1, "web:80/tcp"),
				w.task("c", "web", "10.0.0.2", 1, "81/tcp"),
				vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*1 10.0.0.2:80*1\n10.96.0.1:81/tcp web.net wrr 10.0.0.2:81*1"},
		{"L16: each task has a target of its own, several at one address", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 1, "http:80:8001/tcp", "53:5301/udp"),
				w.task("b", "web", "10.0.0.1", 2, "80:8002/tcp", "53:5302/udp"),
				w.task("c", "web", "10.0.0.2", 1, "80/tcp"), w.task("d", "web", "10.0.0.3", 1, "8001/tcp"),
				vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:53/udp web.net wrr 10.0.0.1:5301*1 10.0.0.1:5302*2\n" +
			"10.96.0.1:80/tcp web.net wrr 10.0.0.1:8001*1 10.0.0.1:8002*2 10.0.0.2:80*1\n" +
			"10.96.0.1:8001/tcp web.net wrr 10.0.0.3:8001*1"},
		{"L16: two ports of a service with one target, and two tasks with one", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 2, "80:8080/tcp", "81:8080/tcp"), w.task("b", "web", "10.0.0.1", 3, "80:8080/tcp"),
				vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:80/tcp web.net wrr 10.0.0.1:8080*5\n10.96.0.1:81/tcp web.net wrr 10.0.0.1:8080*2"},
		{"L16, L12: a task without ports is at the ports that others map, as they are", func(w *world) []state.Change {
			return []state.Change{
				w.task("a", "web", "10.0.0.1", 1), w.task("b", "web", "10.0.0.2", 1, "80:8080/tcp"), vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:all/tcp web.net wrr 10.0.0.1:0*1\n10.96.0.1:all/udp web.net wrr 10.0.0.1:0*1\n" +
			"10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*1 10.0.0.2:8080*1"},
		{"L16, L5: a task drains at its target, beside another one at its address", func(w *world) []state.Change {
			return []state.Change{
				w.change(state.Endpoint{ID: "d", Service: "web", IP4: netip.MustParseAddr("10.0.0.1"), Draining: true},
					"80:8001/tcp", "53:5301/udp"),
				w.task("e", "web", "10.0.0.1", 1, "80:8002/tcp"), vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:53/udp web.net wrr\n10.96.0.1:80/tcp web.net wrr 10.0.0.1:8001*0 10.0.0.1:8002*1"},
		{"L12, L5: a task drains at its own ports", func(w *world) []state.Change {
			return []state.Change{
				w.change(state.Endpoint{ID: "d", Service: "web", IP4: netip.MustParseAddr("10.0.0.1"), Draining: true}, "80/tcp"),
				w.task("e", "web", "10.0.0.2", 1, "8080/tcp"), vip("web", "10.96.0.1"),
			}
		}, pools + "10.96.0.1:80/tcp web.net wrr 10.0.0.1:80*0\n10.96.0.1:8080/tcp web.net wrr 10.0.0.2:8080*1"},
	} {
		w := newWorld(t, "net")
		w.commit("net", c.say(w)...)
		if got := dump(w.plan("net")); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestKeyNames(t *testing.T) {
	four, six := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd96::1")
	for want, k := range map[string]lb.Key{
		"10.96.0.1:80/tcp": {VIP: four, Port: 80, Proto: state.TCP}, "[fd96::1]:53/udp": {VIP: six, Port: 53, Proto: state.UDP},
		"10.96.0.1:all/tcp": {VIP: four, Proto: state.TCP}, "[fd96::1]:all/udp": {VIP: six, Proto: state.UDP},
	} {
		if got := k.String(); got != want || k.AllPorts() != (k.Port == 0) {
			t.Errorf("%+v is %q, want %q", k, got, want)
		}
	}
}

// members lends entries to services that a test makes up.
func members(t testing.TB) state.Members {
	w := newWorld(t, "lender")
	w.commit("lender", w.tasks("web", 6, "80/tcp")...)
	return w.store.View("lender").Service("web").Members
}

// made makes up a service; state would not give two services one address.
func made(name string, lent state.Members, vip netip.Addr, others ...netip.Addr) *state.Service {
	return &state.Service{
		Name: name, VIP4: vip, OtherVIPs: others, Members: lent,
		Ports: []state.Port{{Number: 80, Proto: state.TCP}}, Count: [state.Hidden]int32{state.Serving: int32(lent.Len())},
	}
}

// Rule V5: old and new address are both programmed during a move, and an
// address never belongs to two services.
func TestPlannerMove(t *testing.T) {
	lent := members(t)
	a, b := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("10.96.0.2")
	p := lb.NewPlanner(lb.Node{})
	p.SetNetwork(state.NetworkDef{Name: "net", Subnet4: pool4})
	p.Set("net", "loser", made("loser", lent.Part(0, 1), b, a)) // moved away from a
	p.Set("net", "winner", made("winner", lent.Part(1, 2), a))
	owner := func(vip netip.Addr) string {
		s := p.Desired().Services[lb.Key{VIP: vip, Port: 80, Proto: state.TCP}]
		if s == nil {
			return ""
		}
		return s.Name
	}
	if owner(a) != "winner" || owner(b) != "loser" {
		t.Errorf("a: %s, b: %s", owner(a), owner(b))
	}
	if c := p.Conflicts(); len(c) != 1 || c[0].Loser.Service != "loser" || c[0].VIP != a {
		t.Errorf("conflicts %v", c)
	}
	p.TakeDirty()
	p.Set("net", "winner", nil)
	if owner(a) != "loser" || len(p.Conflicts()) != 0 || len(p.TakeDirty()) == 0 {
		t.Errorf("a: %s, want the loser to inherit it", owner(a))
	}
}

// A planner that followed any changes in any order plans what a new one plans.
func TestPlannerIsHistoryFree(t *testing.T) {
	lent := members(t)
	rapid.Check(t, func(t *rapid.T) {
		now := map[lb.ServiceID]*state.Service{}
		p := lb.NewPlanner(lb.Node{})
		defs := map[string]state.NetworkDef{}
		at := func(label string) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 96, 0, byte(rapid.IntRange(1, 3).Draw(t, label))})
		}
		before := map[lb.Key]*lb.Service{}
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			network := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "network")
			if _, ok := defs[network]; !ok || rapid.IntRange(0, 9).Draw(t, "define") == 0 {
				defs[network] = state.NetworkDef{Name: network, Subnet4: pool4, Birth: rapid.Uint64Range(1, 3).Draw(t, "birth")}
				p.SetNetwork(defs[network])
			}
			id := lb.ServiceID{Network: network, Service: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "service")}
			delete(now, id)
			var s *state.Service
			if rapid.IntRange(0, 3).Draw(t, "gone") > 0 {
				s = made(id.Service, lent.Part(0, rapid.IntRange(0, 4).Draw(t, "members")), at("vip"), at("other"))
				now[id] = s
			}
			p.Set(network, id.Service, s)
			checkDirty(t, before, p)
		}
		again := lb.NewPlanner(lb.Node{})
		for _, d := range defs {
			again.SetNetwork(d)
		}
		for id, s := range now {
			again.Set(id.Network, id.Service, s)
		}
		if got, want := dump(p.Desired()), dump(again.Desired()); got != want {
			t.Fatalf("followed:\n%s\nfresh:\n%s", got, want)
		}
		if got, want := fmt.Sprint(p.Conflicts()), fmt.Sprint(again.Conflicts()); got != want {
			t.Fatalf("conflicts %s, fresh %s", got, want)
		}
	})
}

// checkDirty checks that the dirty keys cover every difference, and updates before.
func checkDirty(t *rapid.T, before map[lb.Key]*lb.Service, p *lb.Planner) {
	for _, k := range p.TakeDirty() {
		if s := p.Desired().Services[k]; s != nil {
			before[k] = s
		} else {
			delete(before, k)
		}
	}
	if len(before) != len(p.Desired().Services) {
		t.Fatalf("%d services by dirty keys, %d planned", len(before), len(p.Desired().Services))
	}
	for k, s := range before {
		if p.Desired().Services[k] != s {
			t.Fatalf("%s changed without being dirty", k)
		}
	}
}
