package lb_test

import (
	"fmt"
	"net/netip"
	"testing"

	"meshd/lb"
	"meshd/state"
)

// Rules L12, L16: which task is behind a backend.
func TestListens(t *testing.T) {
	w := newWorld(t, "net")
	w.commit("net", w.task("none", "web", "10.0.0.1", 1), w.task("plain", "web", "10.0.0.2", 1, "80/tcp"),
		w.task("mapped", "web", "10.0.0.3", 1, "81/tcp", "80:8080/tcp", "80:5353/udp"))
	vip := netip.MustParseAddr("10.96.0.1")
	at := func(port uint16, proto state.Proto) lb.Key { return lb.Key{VIP: vip, Port: port, Proto: proto} }
	for _, c := range []struct {
		task string
		key  lb.Key
		port uint16
		want bool
	}{
		{"none", at(0, state.TCP), 0, true},
		{"none", at(80, state.TCP), 80, true},
		{"none", at(80, state.TCP), 8080, false},
		{"plain", at(80, state.TCP), 80, true},
		{"plain", at(0, state.TCP), 0, false},
		{"plain", at(80, state.UDP), 80, false},
		{"plain", at(80, state.TCP), 8080, false},
		{"mapped", at(80, state.TCP), 8080, true},
		{"mapped", at(80, state.TCP), 80, false},
		{"mapped", at(80, state.UDP), 5353, true},
		{"mapped", at(80, state.UDP), 8080, false},
		{"mapped", at(81, state.TCP), 81, true},
		{"mapped", at(8080, state.TCP), 8080, false},
	} {
		if got := lb.Listens(w.store.View("net").Task(c.task), c.key, c.port); got != c.want {
			t.Errorf("L16: %s behind %s at port %d: %v, want %v", c.task, c.key, c.port, got, c.want)
		}
	}
}

// Rule L11: a peer that states one port many times with targets of its own gets no more
// backends by it: such a record is not shown.
func TestManyTargetsOfOnePort(t *testing.T) {
	e := state.Endpoint{ID: "a", Service: "web", IP4: netip.MustParseAddr("10.0.0.1")}
	for i := range uint16(state.MaxPorts) {
		e.Ports = append(e.Ports, state.Port{Number: 80, Target: 8000 + i, Proto: state.TCP})
	}
	if _, err := state.ParseEndpoint(string(state.AppendEndpoint(nil, &e))); err == nil || e.Validate() == nil {
		t.Error("one port with many targets is taken")
	}
}

// BenchmarkPlan plans a service of 500 tasks: go test ./lb -run - -bench Plan.
func BenchmarkPlan(b *testing.B) {
	for name, ports := range map[string][]string{"all": nil, "plain": {"http:80/tcp", "443/tcp"}, "mapped": mappedPorts} {
		b.Run("ports="+name, func(b *testing.B) {
			w := newWorld(b, "net")
			changes := []state.Change{vip("web", "10.96.0.1")}
			for i := range 500 {
				a := fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)
				changes = append(changes, w.task(fmt.Sprintf("t%d", i), "web", a, 1, ports...))
			}
			w.commit("net", changes...)
			view := w.store.View("net")
			p := lb.NewPlanner(lb.Node{Src4: netip.MustParseAddr("192.0.2.1")})
			p.SetNetwork(view.Def())
			p.Desired() // with its pools
			for b.Loop() {
				p.Set("net", "web", view.Service("web"))
			}
			for _, planned := range p.Desired().Services {
				if n := len(planned.Backends); n != 500 {
					b.Fatalf("%s has %d backends", planned.Key, n)
				}
			}
		})
	}
}

var mappedPorts = []string{"http:80:8080/tcp", "443:8443/tcp"}
