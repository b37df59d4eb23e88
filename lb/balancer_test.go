package lb_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

// run starts a balancer in the bubble; the test's end stops it.
func run(t *testing.T, w *world, cfg lb.Config, drivers ...lb.Driver) *lb.Balancer {
	t.Helper()
	cfg.Source, cfg.Log, cfg.Drivers = w.store, slog.New(slog.DiscardHandler), drivers
	b, err := lb.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return b
}

// after lets virtual time pass.
func after(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

func key(vip string, port uint16) lb.Key {
	return lb.Key{VIP: netip.MustParseAddr(vip), Port: port, Proto: state.TCP}
}

func noFaults(t *testing.T, f *lbtest.Fake) {
	t.Helper()
	if faults := f.Faults(); len(faults) > 0 {
		t.Errorf("rules broken: %v", faults)
	}
}

func TestBalancerFollowsViews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		b := run(t, w, lb.Config{}, kernel)
		after(time.Second)
		if !b.Working("net") || b.Working("other") {
			t.Error("want net working, and no other")
		}
		kernel.TakeOps()
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		after(10 * time.Millisecond)
		if got := fmt.Sprint(kernel.TakeOps()); strings.Count(got, "set-") != 3 {
			t.Errorf("one new service: %s", got)
		}
		w.commit("net", w.task("web-2", "web", "10.0.0.9", 1, "80/tcp"))
		after(10 * time.Millisecond)
		if got := fmt.Sprint(kernel.TakeOps()); got != "[set-backend 10.96.0.1:80/tcp 10.0.0.9:80 weight 1]" {
			t.Errorf("one new task: %s", got)
		}
		s, err := b.Status(t.Context())
		if err != nil || s.Driver != "fake" || !s.Ready || len(s.Services) != 1 || !s.Services[0].Synced ||
			s.Services[0].Name != "web" {
			t.Errorf("status %+v, %v", s, err)
		}
		noFaults(t, kernel)
	})
}

// Rule L5: a removed TCP backend gets weight 0, and goes when idle or late.
func TestBalancerDrains(t *testing.T) {
	for _, c := range []struct {
		name   string
		active int
		within time.Duration // gone by then
		not    time.Duration // still there then
	}{
		{"idle", 0, 3 * time.Second, 0},
		{"busy", 5, 25 * time.Second, 18 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, kernel := newWorld(t, "net"), &lbtest.Fake{}
				b := run(t, w, lb.Config{Grace: time.Nanosecond}, kernel)
				w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"),
					settings("web", state.Settings{Drain: 20 * time.Second}))...)
				after(time.Second)
				k, leaving := key("10.96.0.1", 80), netip.MustParseAddrPort("10.0.0.2:80")
				kernel.SetActive(k, leaving, c.active)
				w.commit("net", gone("web-1"))
				after(100 * time.Millisecond)
				there := func() (uint32, bool) {
					backend, ok := kernel.Kernel().Services[k].Backend(leaving)
					return backend.Weight, ok
				}
				if weight, ok := there(); weight != 0 || !ok || b.Counters().Draining != 1 {
					t.Fatalf("weight %d, there %v, %+v; want it to drain", weight, ok, b.Counters())
				}
				after(c.not)
				if _, ok := there(); c.not > 0 && !ok {
					t.Errorf("gone after %v with connections", c.not)
				}
				after(c.within - c.not)
				if _, ok := there(); ok || b.Counters().Draining != 0 {
					t.Errorf("still there after %v: %+v", c.within, b.Counters())
				}
				noFaults(t, kernel)
			})
		})
	}
}

// Rules L1, R4: what a previous run left stays until the view is complete.
func TestBalancerAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		left := web(state.TCP, 1, 1)
		left.Pools[pool4] = lb.Pool{Prefix: pool4}
		kernel.ChangeKernel(build(left)...)
		b := run(t, w, lb.Config{}, kernel)
		after(5 * time.Second)
		k := key("10.96.0.1", 80)
		if s := kernel.Kernel().Services[k]; s == nil || len(s.Backends) != 2 || s.Backends[0].Weight != 1 {
			t.Fatalf("a view without news removed %v", s)
		}
		w.commit("net", w.task("a", "web", "10.0.0.0", 1, "80/tcp"), vip("web", "10.96.0.1"))
		after(time.Second)
		if got := fmt.Sprint(kernel.TakeOps()); strings.Contains(got, "10.0.0.1:80") || strings.Contains(got, "set-service") {
			t.Errorf("before the sync: %s", got)
		}
		w.store.Table("net").SetSynced()
		w.publish()
		after(time.Minute)
		if s := kernel.Kernel().Services[k]; len(s.Backends) != 1 {
			t.Errorf("after the sync %v", s.Backends)
		}
		if b.Counters().Desired != 1 || b.Counters().Services != 1 {
			t.Errorf("%+v", b.Counters())
		}
		noFaults(t, kernel)
	})
}

// Rule L1: someone flushes the kernel, or changes a weight; it comes back.
func TestBalancerRepairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		b := run(t, w, lb.Config{Grace: time.Nanosecond}, kernel)
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		after(time.Second)
		want := dump(kernel.Kernel())
		kernel.Flush()
		after(time.Minute)
		if got := dump(kernel.Kernel()); got != want {
			t.Errorf("after a flush:\n%s", got)
		}
		k := key("10.96.0.1", 80)
		kernel.ChangeKernel(lb.Op{Kind: lb.SetBackend, Key: k, Backend: lb.Backend{
			Addr:   netip.MustParseAddrPort("10.0.0.1:80"),
			Weight: 7,
		}})
		after(11 * time.Minute)
		if got := dump(kernel.Kernel()); got != want || b.Counters().Repairs != 2 {
			t.Errorf("after a meddler, %d repairs:\n%s", b.Counters().Repairs, got)
		}
		noFaults(t, kernel)
	})
}

// Rules L7, R5: the first driver that works is used; without any, the balancer
// says why and asks again.
func TestBalancerWithoutDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "net")
		refusing := &lbtest.Fake{DriverName: "ipvs", Refuse: fmt.Errorf("%w: kernel has no IPVS", lb.ErrUnsupported)}
		alone := run(t, w, lb.Config{}, refusing)
		second := &lbtest.Fake{DriverName: "nft"}
		both := run(t, w, lb.Config{}, &lbtest.Fake{DriverName: "ipvs", Refuse: refusing.Refuse}, second)
		hopeful := &lbtest.Fake{DriverName: "ipvs", RefuseSetup: fmt.Errorf("%w: sysctl", lb.ErrUnsupported)}
		third := run(t, w, lb.Config{}, hopeful, &lbtest.Fake{DriverName: "nft"})
		after(time.Second)
		s, _ := alone.Status(t.Context())
		if s.Driver != "" || alone.Working("net") || len(s.Refused) != 1 ||
			!strings.Contains(s.Refused[0].Reason, "kernel has no IPVS") ||
			!alone.Counters().Unsupported {
			t.Errorf("alone: %+v", s)
		}
		if s, _ := both.Status(t.Context()); s.Driver != "nft" || !both.Working("net") || len(s.Refused) != 1 {
			t.Errorf("both: %+v", s)
		}
		if s, _ := third.Status(t.Context()); s.Driver != "nft" || len(s.Refused) != 1 || s.Error != "" {
			t.Errorf("third: %+v", s)
		}
		after(time.Minute)
		if s, _ := alone.Status(t.Context()); len(s.Refused) != 1 {
			t.Errorf("alone, a minute later: %+v", s)
		}
	})
}

// Faults are on: with one operation in ten failing, the kernel ends up as the
// views say after any changes.
func TestBalancerUnderFaults(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 7))
			w := newWorld(t, "net", "other")
			w.store.Table("other").SetDef(state.NetworkDef{
				Name: "other", Subnet4: netip.MustParsePrefix("10.97.0.0/16"),
				Birth: 2,
			})
			kernel := &lbtest.Fake{Rand: rand.New(rand.NewPCG(seed, 8)), FailProbability: 0.1}
			b := run(t, w, lb.Config{Node: lb.Node{Drain: 2 * time.Second}}, kernel)
			for range 60 {
				network := []string{"net", "other"}[dice.IntN(2)]
				service, slot := fmt.Sprintf("s%d", dice.IntN(4)), dice.IntN(5)
				id := fmt.Sprintf("%s-%d", service, slot)
				address := map[string]string{"net": "10.96.0.1", "other": "10.97.0.1"}[network] + service[1:]
				ports := []string{"80/tcp", "53/udp"}[:dice.IntN(3)]
				if dice.IntN(3) == 0 {
					w.commit(network, gone(id))
				} else {
					w.commit(network, vip(service, address),
						w.task(id, service, fmt.Sprintf("10.0.%s.%d", service[1:], slot+1), uint16(1+dice.IntN(3)), ports...))
				}
				after(time.Duration(dice.IntN(300)) * time.Millisecond)
			}
			after(2 * time.Minute)
			got, want := kernel.Kernel(), w.plan("net", "other")
			for _, p := range []*lb.Table{got, want} { // labels and node are the test's own
				for k := range p.Pools {
					p.Pools[k] = lb.Pool{Prefix: k}
				}
			}
			if d := lb.Diff(got, want, lb.Policy{Drained: always}); len(d) > 0 || len(got.Services) != len(want.Services) {
				t.Errorf("seed %d: %v\n%+v", seed, d, b.Counters())
			}
			if c := b.Counters(); c.Pending != 0 || c.Failures == 0 || c.LastError != "" {
				t.Errorf("seed %d: %+v", seed, c)
			}
			noFaults(t, kernel)
		})
	}
}

// A network that the node leaves is removed, services before pool.
func TestBalancerNetworkLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		b := run(t, w, lb.Config{Grace: time.Nanosecond}, kernel)
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		after(time.Second)
		w.store.Leave("net")
		after(time.Minute)
		if got := dump(kernel.Kernel()); got != "" || b.Working("net") {
			t.Errorf("left behind:\n%s", got)
		}
		ops := kernel.TakeOps()
		if last := ops[len(ops)-1]; last.Kind != lb.DelPool || !slices.ContainsFunc(ops,
			func(o lb.Op) bool { return o.Kind == lb.DelService }) {
			t.Errorf("%v", ops)
		}
		noFaults(t, kernel)
	})
}
