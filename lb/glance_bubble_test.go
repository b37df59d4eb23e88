package lb_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
)

// numbered is a kernel that numbers its changes.
type numbered struct {
	*lbtest.Fake
	number atomic.Uint64
}

func newNumbered() *numbered {
	n := &numbered{Fake: &lbtest.Fake{}}
	n.number.Store(7)
	return n
}

func (n *numbered) Number(context.Context) (uint64, error) { return n.number.Load(), nil }

func (n *numbered) Apply(ctx context.Context, ops []lb.Op) []error {
	n.number.Add(1)
	return n.Fake.Apply(ctx, ops)
}

// vandalize removes a service, as somebody else would.
func (n *numbered) vandalize() {
	n.number.Add(1)
	n.Meddle(lb.Op{Kind: lb.DelService, Key: key("10.96.0.1", 80)})
}

// L1: what somebody else writes is compared within a second, what the balancer
// writes itself is not, and who writes all the time is looked at as often as
// without it.
func TestGlances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), newNumbered()
		b := run(t, w, lb.Config{Verify: time.Hour}, kernel)
		for i := range 100 {
			w.commit("net", append(w.tasks("web", 1+i%3, "80/tcp"), vip("web", "10.96.0.1"))...)
			after(700 * time.Millisecond)
		}
		if c := b.Counters(); c.Prompted != 0 {
			t.Errorf("its own changes made it compare %d times", c.Prompted)
		}
		kernel.vandalize()
		after(1100 * time.Millisecond)
		if c := b.Counters(); c.Prompted != 1 || c.Repairs != 1 || kernel.Kernel().Services[key("10.96.0.1", 80)] == nil {
			t.Errorf("a second after a change by others: %d comparisons, %d repairs, %s", c.Prompted, c.Repairs, dump(kernel.Kernel()))
		}
		after(time.Minute)
		if c := b.Counters(); c.Prompted != 1 {
			t.Errorf("its own repair made it compare again, %d times", c.Prompted)
		}
	})
}

// L1: others who write without end are followed less and less often.
func TestGlancesAtTheBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newNumbered()
		b := run(t, newWorld(t, "net"), lb.Config{}, kernel)
		for range 600 {
			kernel.number.Add(1)
			after(time.Second)
		}
		if c := b.Counters(); c.Prompted < 10 || c.Prompted > 30 {
			t.Errorf("%d comparisons in ten minutes in which others wrote each second", c.Prompted)
		}
		after(time.Minute)
		before := b.Counters().Prompted
		kernel.number.Add(1)
		after(1100 * time.Millisecond)
		if c := b.Counters(); c.Prompted != before+1 {
			t.Errorf("after a quiet minute: %d comparisons, then %d", before, c.Prompted)
		}
	})
}

// L1: what the host's watcher hears is compared at once, also with a driver
// that numbers nothing; what it hears next, a second later.
func TestTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel, touched := newWorld(t, "net"), &lbtest.Fake{}, make(chan struct{}, 1)
		b := run(t, w, lb.Config{Verify: time.Hour, Touched: touched}, kernel)
		w.commit("net", append(w.tasks("web", 1, "80/tcp"), vip("web", "10.96.0.1"))...)
		after(time.Minute)
		there := func(want bool) {
			t.Helper()
			kernel.Meddle(lb.Op{Kind: lb.DelService, Key: key("10.96.0.1", 80)})
			touched <- struct{}{}
			after(100 * time.Millisecond)
			if s := kernel.Kernel().Services[key("10.96.0.1", 80)]; (s != nil) != want {
				t.Errorf("100 ms later the service is %+v", s)
			}
		}
		there(true)
		there(false)
		after(time.Second)
		if c := b.Counters(); c.Prompted != 2 || c.Repairs != 2 || kernel.Kernel().Services[key("10.96.0.1", 80)] == nil {
			t.Errorf("%d comparisons, %d repairs", c.Prompted, c.Repairs)
		}
	})
}
