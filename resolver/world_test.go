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
	case "failing":
		e.Health = state.HealthFailing
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

// standard is the world of testdata/names.txt: two networks, in which the nodes
// a to d have what the lines there say that begin with "@".
func standard(tb testing.TB) *world {
	w := newWorld(tb, "net1", "net2")
	w.self.Table("net1").SetDef(state.NetworkDef{
		Name: "net1", Subnet4: netip.MustParsePrefix("10.1.0.0/24"),
		Subnet6: netip.MustParsePrefix("fd00:1::/64"),
	})
	w.self.Table("net2").SetDef(state.NetworkDef{Name: "net2", Subnet4: netip.MustParsePrefix("10.2.0.0/24")})
	for _, line := range namesText(tb) {
		if line[0] != '@' {
			continue
		}
		f := strings.SplitN(line, " ", 5)
		if len(f) < 5 {
			tb.Fatalf("testdata/names.txt: %q: use \"@ NODE NETWORK KIND …\"", line)
		}
		w.commit(state.NodeID(f[1]), f[2], record(tb, f[3], f[4]))
	}
	w.liveness("c", state.Dead)
	w.liveness("d", state.Suspected)
	return w
}

// record reads one record of a world: "task" with what the function task reads,
// "vip SERVICE IP4 IP6", or "dnsrr SERVICE".
func record(tb testing.TB, kind, text string) state.Change {
	switch f := strings.Fields(text); {
	case kind == "task":
		return task(tb, text)
	case kind == "vip" && len(f) == 3:
		return vip(f[0], strings.TrimPrefix(f[1], "-"), strings.TrimPrefix(f[2], "-"))
	case kind == "dnsrr" && len(f) == 1:
		return dnsrr(f[0])
	}
	tb.Fatalf("testdata/names.txt: %s %s: use task, vip SERVICE IP4 IP6 or dnsrr SERVICE", kind, text)
	return state.Change{}
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
