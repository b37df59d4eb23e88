package lb_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb"
	"meshd/lb/hostfacts"
	"meshd/lb/lbtest"
	"meshd/state"
)

// theHost is a source of facts that a test changes.
type theHost struct {
	mu      sync.Mutex // guards what follows
	facts   *hostfacts.Facts
	changed chan struct{}
}

func newHost(f hostfacts.Facts) *theHost { return &theHost{facts: &f, changed: make(chan struct{})} }

func (h *theHost) Facts() (*hostfacts.Facts, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.facts, h.changed
}

func (h *theHost) become(f hostfacts.Facts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.facts = &f
	close(h.changed)
	h.changed = make(chan struct{})
}

// onEth0 is a host that lives in a subnet.
func onEth0(subnet string) hostfacts.Facts {
	p := netip.MustParsePrefix(subnet)
	return hostfacts.Facts{
		Addresses: []hostfacts.Address{{Addr: p.Addr().Next(), Device: "eth0"}},
		Routes:    []hostfacts.Route{{Prefix: p, Device: "eth0", Connected: true}},
	}
}

// Rule L9: a pool that touches the host is not programmed, its network is not
// answered with VIPs, and it is told why; when the host changes, so does all
// that, at once and both ways, connections or not.
func TestPoolThatTouchesTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel, host := newWorld(t, "net"), &lbtest.Fake{}, newHost(onEth0("10.96.7.0/24"))
		var told []string
		b := run(t, w, lb.Config{Facts: host, OnRefused: func(network string, against []hostfacts.Conflict) {
			told = append(told, network+": "+lb.FormatConflicts(against))
		}}, kernel)
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		after(time.Second)
		refused := func() {
			t.Helper()
			have := kernel.Kernel()
			if _, there := have.Pools[pool4]; there || len(have.Services) > 0 || b.Working("net") {
				t.Errorf("the kernel holds %s, working %v", dump(have), b.Working("net"))
			}
			if text := lb.FormatConflicts(b.Refused()["net"]); !strings.Contains(text,
				"pool 10.96.0.0/16: route 10.96.7.0/24 of device eth0") {
				t.Errorf("against it stands %q", text)
			}
			if c := b.Counters(); c.Refused != 1 {
				t.Errorf("%d networks are refused", c.Refused)
			}
		}
		refused()
		host.become(onEth0("192.0.2.0/24"))
		after(100 * time.Millisecond)
		if have := kernel.Kernel(); len(have.Pools) != 2 || len(have.Services) != 1 || !b.Working("net") ||
			len(b.Refused()) > 0 {
			t.Errorf("after the address is gone: %s", dump(have))
		}
		kernel.SetActive(key("10.96.0.1", 80), netip.MustParseAddrPort("10.0.0.1:80"), 5)
		host.become(onEth0("10.96.7.0/24"))
		after(100 * time.Millisecond)
		refused()
		if want := 3; len(told) != want || !strings.HasPrefix(told[1], "net: ") || strings.Contains(told[1], "eth0") {
			t.Errorf("told %d times: %q", len(told), told)
		}
		s, err := b.Status(t.Context())
		if err != nil || !slices.ContainsFunc(s.Pools, func(p lb.PoolStatus) bool {
			return len(p.Conflicts) > 0 &&
				!p.Programmed && p.Prefix == pool4
		}) {
			t.Errorf("status %+v, %v", s.Pools, err)
		}
	})
}

// Rule L9: what a previous run left goes at once too, in the time of grace.
func TestForbiddenPoolIsNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		w.commit("net", append(w.tasks("web", 1, "80/tcp"), vip("web", "10.96.0.1"))...)
		first := newHost(hostfacts.Facts{})
		_ = run(t, w, lb.Config{Facts: first}, kernel)
		after(time.Second)
		if len(kernel.Kernel().Services) != 1 {
			t.Fatal("nothing is there to be adopted")
		}
		first.become(hostfacts.Facts{Unknown: "netlink is silent"})
		after(100 * time.Millisecond)
		if have := kernel.Kernel(); len(have.Pools)+len(have.Services) > 0 {
			t.Errorf("with a host of which nothing is known: %s", dump(have))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t), &lbtest.Fake{}
		k := key("10.96.0.1", 80)
		kernel.ChangeKernel(
			lb.Op{Kind: lb.SetPool, Pool: lb.Pool{Prefix: pool4}},
			lb.Op{Kind: lb.SetService, Key: k, Service: &lb.Service{Key: k, Scheduler: "wrr"}},
			lb.Op{Kind: lb.SetBackend, Key: k, Backend: lb.Backend{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}})
		run(t, w, lb.Config{Facts: newHost(onEth0("10.96.0.0/12"))}, kernel)
		after(100 * time.Millisecond)
		if have := kernel.Kernel(); len(have.Pools)+len(have.Services) > 0 {
			t.Errorf("of a network that is not known yet: %s", dump(have))
		}
	})
}

// Rule L9: of overlapping pools the older network's is served.
func TestOverlappingPools(t *testing.T) {
	t.Parallel()
	p := lb.NewPlanner(lb.Node{})
	p.SetNetwork(state.NetworkDef{Name: "blue", Subnet4: netip.MustParsePrefix("10.85.0.0/16"), Birth: 9})
	p.SetNetwork(state.NetworkDef{Name: "red", Subnet4: netip.MustParsePrefix("10.85.3.0/24"), Birth: 3})
	if pools := p.Desired().Pools; len(pools) != 1 || pools[netip.MustParsePrefix("10.85.3.0/24")].Network != "red" {
		t.Errorf("planned are %v", pools)
	}
	text := lb.FormatConflicts(p.Refused()["blue"])
	if text != "pool 10.85.0.0/16: pool 10.85.3.0/24 of network red, which is older" {
		t.Errorf("against blue stands %q", text)
	}
	p.DropNetwork("red")
	if pools := p.Desired().Pools; len(pools) != 1 || len(p.Refused()) > 0 {
		t.Errorf("without red: %v, %v", pools, p.Refused())
	}
}

// Rule L9: backends never lead to what listens on a host's loopback device, nor
// to another VIP.
func TestBackendsThatAreNoTasks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, addr string
		node       lb.Node
		want       bool
	}{
		{"ordinary", "10.0.0.1", lb.Node{}, true},
		{"loopback", "127.0.0.1", lb.Node{}, false},
		{"all of loopback", "127.9.9.9", lb.Node{}, false},
		{"loopback, for trials", "127.0.0.1", lb.Node{AllowLoopback: true}, true},
		{"a VIP", "10.96.0.9", lb.Node{}, false},
		{"an address of lo", "192.0.2.7", lb.Node{}, false},
		{"the node's own task at an address of lo", "192.0.2.7", lb.Node{Self: "node"}, true},
	} {
		w := newWorld(t, "net")
		e := state.Endpoint{
			ID: "a", Service: "web", IP4: netip.MustParseAddr(c.addr), Weight: 1,
			Ports: []state.Port{{Number: 80, Proto: state.TCP}},
		}
		e.Normalize()
		w.commit("net", state.Change{
			Kind: state.KindEndpoint, Key: "a", Group: "web",
			Body: string(state.AppendEndpoint(nil, &e)),
		}, vip("web", "10.96.0.1"))
		p := lb.NewPlanner(c.node)
		p.SetFacts(&hostfacts.Facts{Addresses: []hostfacts.Address{{
			Addr: netip.MustParseAddr("192.0.2.7"), Device: "lo",
			Loopback: true,
		}}})
		v := w.store.View("net")
		p.SetNetwork(v.Def())
		for _, s := range v.Services() {
			p.Set("net", s.Name, s)
		}
		s := p.Desired().Services[key("10.96.0.1", 80)]
		if s == nil || (len(s.Backends) == 1) != c.want {
			t.Errorf("%s: the service is %v, want a backend: %v", c.name, s, c.want)
		}
	}
}

// Rule L6: the kernel loads a module by a scheduler's name.
func TestUnknownScheduler(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "net")
	w.commit("net", append(w.tasks("web", 1, "80/tcp"), vip("web", "10.96.0.1"),
		settings("web", state.Settings{Scheduler: "evil"}))...)
	p := w.plan("net")
	if s := p.Services[key("10.96.0.1", 80)]; s == nil || s.Scheduler != "wrr" {
		t.Errorf("planned is %v", s)
	}
}
