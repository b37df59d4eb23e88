package resolver

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"meshd/state"
)

// world is a real state.Store as node "a" sees it, with other nodes' streams
// delivered to it.
type world struct {
	tb    testing.TB
	self  *state.Store
	nodes map[state.NodeID]*state.Store
}

type lamport struct{ t uint64 }

func (l *lamport) Tick() uint64     { l.t++; return l.t }
func (l *lamport) Time() uint64     { return l.t }
func (l *lamport) Witness(t uint64) { l.t = max(l.t, t) }

func newWorld(tb testing.TB, networks ...string) *world {
	w := &world{tb: tb, nodes: map[state.NodeID]*state.Store{}}
	w.self = w.node("a")
	for _, n := range networks {
		w.self.Join(n).SetSynced()
	}
	return w
}

func (w *world) node(id state.NodeID) *state.Store {
	s := w.nodes[id]
	if s == nil {
		limits := state.DefaultLimits()
		limits.AllowLoopback = true // clients of the tests are tasks at 127.0.0.x
		s = state.NewStore(id, 1, limits, new(lamport))
		w.nodes[id] = s
	}
	return s
}

// commit writes changes as one node and brings them to node a's views.
func (w *world) commit(id state.NodeID, network string, changes ...state.Change) {
	w.tb.Helper()
	t := w.node(id).Join(network)
	if _, err := t.Commit(changes); err != nil {
		w.tb.Fatal(err)
	}
	if id != "a" {
		w.self.SetLiveness(id, state.Alive)
		w.deliver(t, w.self.Table(network), id)
	}
	w.self.Publish(0)
}

func (w *world) deliver(from, to *state.Table, owner state.NodeID) {
	w.tb.Helper()
	head, _ := from.Head(owner)
	for range 1000 {
		want, need := to.Want(owner, head)
		if !need {
			return
		}
		if _, err := w.self.Apply(from.Delta(want, 1<<20)); err != nil {
			w.tb.Fatal(err)
		}
	}
	w.tb.Fatalf("stream of %s does not arrive", owner)
}

func (w *world) liveness(id state.NodeID, l state.Liveness) {
	w.self.SetLiveness(id, l)
	w.self.Publish(0)
}

// task reads "id service slot ip4 ip6 key=value...", "-" for none.
func task(tb testing.TB, text string) state.Change {
	tb.Helper()
	f := strings.Fields(text)
	e := state.Endpoint{ID: f[0], Service: f[1]}
	fmt.Sscan(f[2], &e.Slot)
	if f[3] != "-" {
		e.IP4 = netip.MustParseAddr(f[3])
	}
	if f[4] != "-" {
		e.IP6 = netip.MustParseAddr(f[4])
	}
	for _, kv := range f[5:] {
		setTask(tb, &e, kv)
	}
	e.Normalize()
	if err := e.Validate(); err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return state.Change{Kind: state.KindEndpoint, Key: e.ID, Group: e.Service, Body: string(state.AppendEndpoint(nil, &e))}
}

func setTask(tb testing.TB, e *state.Endpoint, kv string) {
	k, v, _ := strings.Cut(kv, "=")
	switch k {
	case "port":
		p, err := state.ParsePort(v)
		if err != nil {
			tb.Fatal(err)
		}
		e.Ports = append(e.Ports, p)
	case "alias":
		e.Aliases = append(e.Aliases, v)
	case "name":
		e.Name = v
	case "host":
		e.Hostname = v
	case "weight":
		fmt.Sscan(v, &e.Weight)
	case "draining":
		e.Draining = true
	case "starting":
		e.Health = state.HealthStarting
	default:
		tb.Fatalf("task: unknown key %q", k)
	}
}

func dnsrr(service string) state.Change {
	c := state.SettingsClaim{Settings: state.Settings{Mode: state.ModeDNSRR}, Lamport: 1}
	return state.Change{Kind: state.KindSettings, Key: service, Body: string(state.AppendSettings(nil, c))}
}

func vip(service, ip4, ip6 string) state.Change {
	c := state.VIPClaim{Service: service, Birth: 1}
	if ip4 != "" {
		c.VIP4 = netip.MustParseAddr(ip4)
	}
	if ip6 != "" {
		c.VIP6 = netip.MustParseAddr(ip6)
	}
	return state.Change{Kind: state.KindVIP, Key: service, Body: string(state.AppendVIPClaim(nil, c))}
}

const (
	idA1 = "aaaaaaaaaaaaaaaaaaaaaaaa1"
	idB1 = "bbbbbbbbbbbbbbbbbbbbbbbb1"
)

// standard is the world of testdata/names.txt.
func standard(tb testing.TB) *world {
	w := newWorld(tb, "net1", "net2")
	w.self.Table("net1").SetDef(state.NetworkDef{
		Name: "net1", Subnet4: netip.MustParsePrefix("10.1.0.0/24"),
		Subnet6: netip.MustParsePrefix("fd00:1::/64"),
	})
	w.self.Table("net2").SetDef(state.NetworkDef{Name: "net2", Subnet4: netip.MustParsePrefix("10.2.0.0/24")})
	w.commit("a", "net1",
		vip("web", "10.1.0.5", "fd00:1::5"), vip("idle", "10.1.0.6", ""), vip("four", "10.1.0.7", ""),
		task(tb, idA1+" web 1 172.16.1.1 fd99::1 port=http:80/tcp port=dns:53/udp alias=www alias=front.lan name=web-one "+
			"host=host-one"),
		task(tb, "drain1 web 4 172.16.1.4 - draining port=http:80/tcp"),
		task(tb, "start1 web 5 172.16.1.5 - starting port=http:80/tcp"),
		task(tb, "four1 four 1 172.16.1.40 - port=9000/tcp"),
		dnsrr("db"), dnsrr("empty"), dnsrr("six"),
		task(tb, "db1 db 1 172.16.1.21 - port=5432/tcp weight=3"),
		task(tb, "six1 six 0 - fd99::6"),
		task(tb, "nov1 nov 1 172.16.1.31 -"))
	w.commit("b", "net1",
		task(tb, idB1+" web 2 172.16.1.2 fd99::2 port=http:80/tcp"),
		task(tb, "db2 db 2 172.16.1.22 - port=5432/tcp"))
	w.commit("c", "net1", task(tb, "dead1 web 3 172.16.1.3 - port=http:80/tcp"))
	w.commit("d", "net1", task(tb, "db3 db 3 172.16.1.23 - port=5432/tcp"))
	w.commit("a", "net2", vip("web", "10.2.0.5", ""), vip("cache", "10.2.0.6", ""),
		task(tb, "w2 web 1 172.16.2.1 -"), task(tb, "c2 cache 1 172.16.2.2 -"),
		task(tb, "both net1client 1 172.16.1.99 -"))
	w.commit("a", "net1", task(tb, "both net2client 1 172.16.1.99 -"))
	w.liveness("c", state.Dead)
	w.liveness("d", state.Suspected)
	return w
}

func (w *world) zone() *zone {
	return &zone{Source: w.self, Domain: DefaultDomain, TTL: 5, NegativeTTL: 2}
}

// scopeOf reads "host", "none" or networks joined by commas.
func scopeOf(text string) clientScope {
	switch text {
	case "host":
		return clientScope{Host: true}
	case "none":
		return clientScope{}
	}
	return clientScope{Networks: slices.Collect(strings.SplitSeq(text, ","))}
}
