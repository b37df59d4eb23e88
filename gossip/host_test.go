package gossip_test

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/state"
)

func startHost(t *testing.T, name string, key []byte, join ...string) *gossip.Host {
	t.Helper()
	cfg := gossip.HostConfig{
		Self: state.NodeID(name), Bind: netip.MustParseAddrPort("127.0.0.1:0"), Profile: "local", Join: join,
		Incarnation: 1, Log: slog.New(slog.DiscardHandler),
	}
	if key != nil {
		cfg.Keys = [][]byte{key}
	}
	h, err := gossip.NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan error, 1)
	go func() { finished <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-finished; err != nil {
			t.Error(err)
		}
	})
	return h
}

func do(t *testing.T, h *gossip.Host, f func(c *gossip.Core, now time.Duration)) {
	t.Helper()
	if err := h.Do(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func addTask(t *testing.T, h *gossip.Host, id, ip string) {
	t.Helper()
	e := state.Endpoint{ID: id, Service: "web", IP4: netip.MustParseAddr(ip), Weight: 1}
	do(t, h, func(c *gossip.Core, now time.Duration) {
		c.Host("net", "web", state.Hosting{Tasks: 1})
		if err := c.Commit(now, "net", []state.Change{{
			Kind: state.KindEndpoint, Key: id, Group: "web",
			Body: string(state.AppendEndpoint(nil, &e)),
		}}); err != nil {
			t.Error(err)
		}
	})
}

func defineNetwork(t *testing.T, h *gossip.Host) {
	t.Helper()
	d := state.NetworkClaim{NetworkDef: state.NetworkDef{
		Name: "net", Subnet4: netip.MustParsePrefix("10.96.0.0/16"),
		Birth: 1,
	}, Pinned: true}
	do(t, h, func(c *gossip.Core, now time.Duration) {
		if err := c.Commit(now, "", []state.Change{{
			Kind: state.KindNetwork, Key: "net",
			Body: string(state.AppendNetwork(nil, d)),
		}}); err != nil {
			t.Error(err)
		}
	})
}

func TestThreeHostsConverge(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	a := startHost(t, "a", key)
	b := startHost(t, "b", key, a.Addr().String())
	c := startHost(t, "c", key, a.Addr().String())
	defineNetwork(t, a)
	for i, h := range []*gossip.Host{a, b, c} {
		do(t, h, func(c *gossip.Core, now time.Duration) {
			if err := c.JoinNetwork(now, "net"); err != nil {
				t.Error(err)
			}
		})
		addTask(t, h, "t"+string(rune('1'+i)), "10.1.0."+string(rune('1'+i)))
	}
	for _, h := range []*gossip.Host{a, b, c} {
		eventually(t, "three tasks behind one VIP", func() bool {
			s := h.Source().View("net").Service("web")
			return s != nil && s.Count[state.Serving] == 3 && s.VIP4.IsValid()
		})
	}
	vip := a.Source().View("net").Service("web").VIP4
	for _, h := range []*gossip.Host{b, c} {
		eventually(t, "V3: the same VIP everywhere", func() bool { return h.Source().View("net").Service("web").VIP4 == vip })
	}
	if err := c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "S9: tasks of a node that left are gone", func() bool {
		return a.Source().View("net").Service("web").Count[state.Serving] == 2
	})
}

func TestCallsAreAnswered(t *testing.T) {
	a := startHost(t, "a", nil)
	b := startHost(t, "b", nil, a.Addr().String())
	b.Handle("echo", func(from state.NodeID, body []byte) []byte { return append([]byte(from+":"), body...) })
	eventually(t, "a knows b", func() bool {
		n := 0
		do(t, a, func(c *gossip.Core, _ time.Duration) { n = len(c.Members()) })
		return n == 1
	})
	got, err := a.Call(t.Context(), "b", "echo", []byte("hi"))
	if err != nil || string(got) != "a:hi" {
		t.Fatalf("got %q, %v", got, err)
	}
}
