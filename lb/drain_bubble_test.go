//go:build !race

package lb_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

// place is one backend of one service.
type place struct {
	key  lb.Key
	addr netip.AddrPort
}

// careful is a kernel that watches over connections: a TCP backend goes after
// it had weight 0, and with connections open not before its time; UDP never has
// weight 0 (L5).
type careful struct {
	*lbtest.Fake
	drain time.Duration

	mu     sync.Mutex // guards what follows
	since  map[place]time.Time
	active map[place]bool
	faults []string
}

func (c *careful) setActive(p place, active bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active[p] = active
	c.SetActive(p.key, p.addr, map[bool]int{true: 1}[active])
}

func (c *careful) Apply(ctx context.Context, ops []lb.Op) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	kernel := c.Kernel()
	for _, op := range ops {
		p := place{op.Key, op.Backend.Addr}
		switch {
		case op.Kind == lb.SetBackend && op.Backend.Weight == 0 && op.Key.Proto == state.UDP:
			c.faults = append(c.faults, fmt.Sprintf("%s: UDP does not drain", op))
		case op.Kind == lb.SetBackend && op.Backend.Weight > 0:
			delete(c.since, p)
		case op.Kind == lb.SetBackend:
			if _, known := c.since[p]; !known {
				c.since[p] = time.Now()
			}
		case op.Kind == lb.DelBackend && op.Key.Proto != state.UDP && kernel.Services[op.Key] != nil:
			if b, there := kernel.Services[op.Key].Backend(p.addr); there && b.Weight > 0 {
				c.faults = append(c.faults, fmt.Sprintf("%s with weight %d", op, b.Weight))
			}
			if since := c.since[p]; c.active[p] && time.Since(since) < c.drain {
				c.faults = append(c.faults, fmt.Sprintf("%s with connections after %v", op, time.Since(since)))
			}
		}
	}
	return c.Fake.Apply(ctx, ops)
}

// Rules L1, L5: whatever happens, restarts and changes of ports included, no
// connection is cut before the deadline, and in the end the kernel is as the
// views say.
func TestConnectionsKeepTheirTime(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 3))
			w := newWorld(t, "net")
			w.store.Table("net").SetSynced()
			w.publish()
			c := &careful{
				Fake: &lbtest.Fake{}, drain: 20 * time.Second, since: map[place]time.Time{}, active: map[place]bool{},
			}
			if seed%2 == 1 {
				c.Rand, c.FailProbability = rand.New(rand.NewPCG(seed, 4)), 0.05
			}
			config := lb.Config{
				Source: w.store, Log: slog.New(slog.DiscardHandler), Drivers: []lb.Driver{c},
				Node: lb.Node{Drain: c.drain},
			}
			stop := begin(t, config)
			for range 150 {
				service, slot := fmt.Sprintf("s%d", dice.IntN(3)), dice.IntN(4)
				id := fmt.Sprintf("%s-%d", service, slot)
				ports := [][]string{nil, {"80/tcp"}, {"80/tcp", "53/udp"}, {"81/tcp"}}[dice.IntN(4)]
				switch dice.IntN(12) {
				case 0, 1, 2:
					w.commit("net", gone(id))
				case 3:
					for p := range c.known() {
						c.setActive(p, dice.IntN(2) == 0)
					}
				case 4:
					stop()
					stop = begin(t, config)
				default:
					w.commit("net", vip(service, "10.96.0.1"+service[1:]), w.task(id, service,
						fmt.Sprintf("10.0.%s.%d", service[1:], slot+1), uint16(1+dice.IntN(2)), ports...))
				}
				after(time.Duration(dice.IntN(8000)) * time.Millisecond)
			}
			for p := range c.known() {
				c.setActive(p, false)
			}
			after(2 * time.Minute)
			stop()
			got, want := c.Kernel(), w.plan("net")
			for _, table := range []*lb.Table{got, want} {
				for k := range table.Pools {
					table.Pools[k] = lb.Pool{Prefix: k}
				}
			}
			if d := lb.Compare(got, want); len(d) > 0 {
				t.Errorf("seed %d: in the end %v", seed, d)
			}
			if len(c.faults) > 0 {
				t.Errorf("seed %d: %v", seed, c.faults)
			}
			noFaults(t, c.Fake)
		})
	}
}

// known returns all backends in the kernel.
func (c *careful) known() map[place]bool {
	all := map[place]bool{}
	for k, s := range c.Kernel().Services {
		for _, b := range s.Backends {
			all[place{k, b.Addr}] = true
		}
	}
	return all
}

// begin runs a balancer until stop.
func begin(t *testing.T, cfg lb.Config) (stop func()) {
	t.Helper()
	b, err := lb.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Rule L5: a drain outlives the daemon: the next one gives it a deadline anew.
func TestDrainOutlivesTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		w.store.Table("net").SetSynced()
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		cfg := lb.Config{
			Source: w.store, Log: slog.New(slog.DiscardHandler), Drivers: []lb.Driver{kernel},
			Node: lb.Node{Drain: 20 * time.Second},
		}
		stop := begin(t, cfg)
		after(time.Second)
		k, leaving := key("10.96.0.1", 80), netip.MustParseAddrPort("10.0.0.2:80")
		kernel.SetActive(k, leaving, 1)
		w.commit("net", gone("web-1"))
		after(15 * time.Second)
		stop()
		stop = begin(t, cfg)
		defer func() { stop() }()
		after(15 * time.Second)
		if b, there := kernel.Kernel().Services[k].Backend(leaving); !there || b.Weight != 0 {
			t.Errorf("15 s into the new deadline: %v, there %v", b, there)
		}
		after(10 * time.Second)
		if _, there := kernel.Kernel().Services[k].Backend(leaving); there {
			t.Error("still there past the new deadline")
		}
		noFaults(t, kernel)
	})
}

// deaf is a kernel whose driver has to be set up again, for a while.
type deaf struct {
	*lbtest.Fake
	until time.Time
}

func (d *deaf) Check(ctx context.Context) ([]lb.Finding, error) {
	if time.Now().Before(d.until) {
		return nil, fmt.Errorf("%w: no answer", lb.ErrDrift)
	}
	return d.Fake.Check(ctx)
}

func (d *deaf) Setup(ctx context.Context) error {
	if time.Now().Before(d.until) {
		return fmt.Errorf("no answer")
	}
	return d.Fake.Setup(ctx)
}

// Rule L5: the deadline holds also if the driver did not work meanwhile.
func TestDrainOutlivesTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &deaf{Fake: &lbtest.Fake{}}
		w.store.Table("net").SetSynced()
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		b := run(t, w, lb.Config{Node: lb.Node{Drain: 60 * time.Second}, Verify: 2 * time.Second}, kernel)
		after(time.Second)
		k, leaving := key("10.96.0.1", 80), netip.MustParseAddrPort("10.0.0.2:80")
		kernel.SetActive(k, leaving, 1)
		w.commit("net", gone("web-1"))
		after(time.Second)
		kernel.until = time.Now().Add(10 * time.Second)
		after(5 * time.Second)
		if b.Working("net") || b.Counters().Ready {
			t.Error("it says that it works")
		}
		after(60 * time.Second)
		if _, there := kernel.Kernel().Services[k].Backend(leaving); there {
			t.Errorf("still there past the deadline: %+v", b.Counters())
		}
		if c := b.Counters(); c.Drains[lb.DrainDeadline] != 1 || !c.Ready || c.LastError != "" {
			t.Errorf("%+v", c)
		}
		noFaults(t, kernel.Fake)
	})
}

// A daemon that says goodbye states that it has no tasks; the kernel goes on
// with them until the next start.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		w.store.Table("net").SetSynced()
		w.commit("net", append(w.tasks("web", 2, "80/tcp", "53/udp"), vip("web", "10.96.0.1"))...)
		b := run(t, w, lb.Config{Grace: time.Nanosecond}, kernel)
		after(time.Second)
		before := dump(kernel.Kernel())
		if err := b.Hold(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.commit("net", gone("web-0"), gone("web-1"))
		after(time.Hour)
		if got := dump(kernel.Kernel()); got != before {
			t.Errorf("the kernel has\n%s\nwant\n%s", got, before)
		}
		if r, err := b.Verify(t.Context(), true); err != nil || !strings.Contains(r.Error, "stopping") {
			t.Errorf("%+v, %v", r, err)
		}
		run(t, w, lb.Config{Grace: time.Nanosecond}, kernel)
		after(time.Minute)
		if got := dump(kernel.Kernel()); got == before {
			t.Error("the next balancer does not go on")
		}
		noFaults(t, kernel)
	})
}
