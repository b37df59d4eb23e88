//go:build !race

package lb_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
)

// counting is a kernel that notes when connections were counted, which takes a
// while.
type counting struct {
	*lbtest.Fake
	takes time.Duration

	mu    sync.Mutex // guards what follows
	looks []time.Time
}

func (c *counting) Usage(ctx context.Context, keys []lb.Key) (map[lb.Key]lb.Usage, error) {
	c.mu.Lock()
	c.looks = append(c.looks, time.Now())
	c.mu.Unlock()
	time.Sleep(c.takes)
	return c.Fake.Usage(ctx, keys)
}

// since returns how long after a time each look began.
func (c *counting) since(start time.Time) (after []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.looks {
		after = append(after, at.Sub(start).Round(100*time.Millisecond))
	}
	return after
}

// Rule L5: draining backends are looked at more and more seldom, for a small
// part of the time however long a look takes, soon again after a new one began
// to drain, and the deadline is kept to the moment.
func TestLooksAtDrainsAreBounded(t *testing.T) {
	for _, test := range []struct {
		name   string
		takes  time.Duration
		second bool // another backend begins to drain after 20 s
		most   int  // looks within 60 s
	}{
		{name: "quick", most: 10},
		{name: "quick, a second one", second: true, most: 14},
		{name: "slow", takes: 2 * time.Second, most: 4},
		{name: "slow, a second one", takes: 2 * time.Second, second: true, most: 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, kernel := newWorld(t, "net"), &counting{Fake: &lbtest.Fake{}, takes: test.takes}
				w.store.Table("net").SetSynced()
				w.commit("net", append(w.tasks("web", 3, "80/tcp"), vip("web", "10.96.0.1"))...)
				const drain = 61 * time.Second
				run(t, w, lb.Config{Node: lb.Node{Drain: drain}, Verify: time.Hour}, kernel)
				after(time.Second)
				k := key("10.96.0.1", 80)
				busy := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("10.0.0.3:80")}
				for _, a := range busy {
					kernel.SetActive(k, a, 1)
				}
				start := time.Now()
				w.commit("net", gone("web-1"))
				after(20 * time.Second)
				if test.second {
					w.commit("net", gone("web-2"))
				}
				after(40 * time.Second)
				looks := kernel.since(start)
				if len(looks) == 0 || len(looks) > test.most || looks[0] != time.Second {
					t.Errorf("looks after %v, want the first after 1s and at most %d", looks, test.most)
				}
				for i := 1; i < len(looks); i++ {
					if rest := looks[i] - looks[i-1] - test.takes; rest < 10*test.takes {
						t.Errorf("looks after %v: only %v of rest after one of %v", looks, rest, test.takes)
					}
				}
				there := func() bool {
					_, there := kernel.Kernel().Services[k].Backend(busy[0])
					return there
				}
				if !there() {
					t.Error("gone before the deadline")
				}
				after(drain - time.Since(start) + 100*time.Millisecond)
				if test.takes == 0 && there() {
					t.Error("still there past the deadline")
				}
			})
		})
	}
}
