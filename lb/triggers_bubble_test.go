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
	n.ChangeKernel(lb.Op{Kind: lb.DelService, Key: key("10.96.0.1", 80)})
}

// L15: what somebody else writes is compared within a second, what the balancer
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
		if c := b.Counters(); c.Triggered != 0 {
			t.Errorf("its own changes made it compare %d times", c.Triggered)
		}
		kernel.vandalize()
		after(1100 * time.Millisecond)
		if c := b.Counters(); c.Triggered != 1 || c.Repairs != 1 || kernel.Kernel().Services[key("10.96.0.1", 80)] == nil {
			t.Errorf("a second after a change by others: %d comparisons, %d repairs, %s", c.Triggered, c.Repairs,
				dump(kernel.Kernel()))
		}
		after(time.Minute)
		if c := b.Counters(); c.Triggered != 1 {
			t.Errorf("its own repair made it compare again, %d times", c.Triggered)
		}
	})
}

// slowly is a kernel that takes its time to be compared.
type slowly struct {
	*numbered
	check time.Duration
}

func (s slowly) Check(ctx context.Context) ([]lb.Finding, error) {
	sleep(s.check)
	return s.numbered.Check(ctx)
}

// L15: others who write without end cost a share of the time that is bounded;
// after it, and after a quiet while, what they change is compared at once.
func TestGlancesAtTheBusy(t *testing.T) {
	for _, told := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			kernel, heard := slowly{newNumbered(), 20 * time.Millisecond}, make(chan struct{}, 1)
			b := run(t, newWorld(t, "net"), lb.Config{
				Verify: time.Hour, RulesChanged: heard,
				PollRules: func() bool { return !told },
			},
				kernel)
			change := func() {
				kernel.number.Add(1)
				if !told {
					return
				}
				select {
				case heard <- struct{}{}:
				default:
				}
			}
			after(time.Second)
			start := b.Counters()
			for range 60_000 {
				change()
				after(time.Millisecond)
			}
			c := b.Counters()
			if spent := c.VerifyTime - start.VerifyTime; spent > 3*time.Second+300*time.Millisecond ||
				c.Triggered-start.Triggered < 50 {
				t.Errorf("told %v: %d comparisons and %v in a minute in which others wrote all the time", told,
					c.Triggered-start.Triggered, spent)
			}
			after(time.Second)
			if c := b.Counters(); c.Repairs != 0 {
				t.Fatalf("%d repairs", c.Repairs)
			}
			kernel.InjectFindings(lb.Finding{Area: lb.AreaRule, Kind: lb.FindingMissing, What: "guard rule"})
			change()
			if !told {
				after(time.Second)
			}
			after(100 * time.Millisecond)
			if c := b.Counters(); c.Repairs != 1 {
				t.Errorf("told %v: a moment after the end of it all: %d repairs", told, c.Repairs)
			}
		})
	}
}

// L15: what is told of is not asked for, and asked for as soon as it is not told
// any more.
func TestUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var unheard atomic.Bool
		kernel, heard := newNumbered(), make(chan struct{}, 1)
		b := run(t, newWorld(t, "net"), lb.Config{Verify: time.Hour, RulesChanged: heard, PollRules: unheard.Load}, kernel)
		after(time.Minute)
		kernel.number.Add(1)
		after(time.Minute)
		if c := b.Counters(); c.Triggered != 0 {
			t.Errorf("%d comparisons because of what was not told", c.Triggered)
		}
		unheard.Store(true)
		heard <- struct{}{}
		after(100 * time.Millisecond)
		if c := b.Counters(); c.Triggered != 1 {
			t.Errorf("nothing is told any more: %d comparisons", c.Triggered)
		}
		kernel.number.Add(1)
		after(2 * time.Second)
		if c := b.Counters(); c.Triggered != 2 {
			t.Errorf("two seconds after a change that was not told: %d comparisons", c.Triggered)
		}
	})
}

// L15: balancers that share a budget spend it together; one that spent nothing is
// not kept waiting by the others.
func TestBudgetIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var budget lb.Budget
		var spent atomic.Int64
		end, each := time.Now().Add(10*time.Minute), 10*time.Millisecond
		for range 50 {
			go func() {
				for time.Now().Before(end) {
					sleep(budget.Spend(func() { sleep(each) }))
					spent.Add(int64(each))
				}
			}()
		}
		sleep(11 * time.Minute)
		if spent := time.Duration(spent.Load()); spent < 25*time.Second || spent > 35*time.Second {
			t.Errorf("fifty spent %v in ten minutes, want a twentieth", spent)
		}
		var row lb.Budget
		for range 10 {
			if rest := row.Spend(func() { sleep(10 * time.Millisecond) }); rest > 50*time.Millisecond {
				t.Errorf("after a calm while, work of 10 ms is followed by %v", rest)
			}
		}
		if rest := budget.Spend(func() {}); rest > 50*time.Millisecond {
			t.Errorf("what cost nothing is followed by %v", rest)
		}
		waiting := lb.Budget{Processor: func() time.Duration { return 0 }}
		if rest := waiting.Spend(func() { sleep(time.Second) }); rest != time.Second {
			t.Errorf("who waited for a second for the kernel rests for %v", rest)
		}
	})
}

// sleep waits without asking the others to.
func sleep(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// L15: what is told comes to the log some times in a row, and then now and then.
func TestDriftWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel, heard, told := newNumbered(), make(chan struct{}, 1), 0
		b := run(t, newWorld(t, "net"), lb.Config{
			Verify: time.Hour, RulesChanged: heard, PollRules: func() bool { return false }, OnDrift: func(lb.Report) { told++ },
		}, kernel)
		after(time.Second)
		for range 3000 {
			kernel.InjectFindings(lb.Finding{Area: lb.AreaRule, Kind: lb.FindingMissing, What: "guard rule"})
			heard <- struct{}{}
			after(100 * time.Millisecond)
		}
		if c := b.Counters(); c.Repairs != 3000 || told < 15 || told > 20 {
			t.Errorf("%d repairs, told %d times in five minutes", c.Repairs, told)
		}
	})
}

// L15: what the host's watcher hears is compared at once, also with a driver
// that numbers nothing; what it hears next, a moment later.
func TestTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel, touched := newWorld(t, "net"), &lbtest.Fake{}, make(chan struct{}, 1)
		b := run(t, w, lb.Config{Verify: time.Hour, RoutesChanged: touched}, kernel)
		w.commit("net", append(w.tasks("web", 1, "80/tcp"), vip("web", "10.96.0.1"))...)
		after(time.Minute)
		there := func(want bool) {
			t.Helper()
			kernel.ChangeKernel(lb.Op{Kind: lb.DelService, Key: key("10.96.0.1", 80)})
			touched <- struct{}{}
			after(10 * time.Millisecond)
			if s := kernel.Kernel().Services[key("10.96.0.1", 80)]; (s != nil) != want {
				t.Errorf("10 ms later the service is %+v", s)
			}
		}
		there(true)
		there(false)
		after(100 * time.Millisecond)
		if c := b.Counters(); c.Triggered != 2 || c.Repairs != 2 || kernel.Kernel().Services[key("10.96.0.1", 80)] == nil {
			t.Errorf("%d comparisons, %d repairs", c.Triggered, c.Repairs)
		}
	})
}
