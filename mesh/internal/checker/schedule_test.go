package checker

import (
	"math/rand/v2"
	"testing"
	"time"

	"meshd/mesh/health"
	"meshd/mesh/source"
)

func check(t testing.TB, line string) *health.Check {
	t.Helper()
	d, err := health.ParseFlag(line)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Parse()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// clockwork runs a scheduler by hand: each run that begins lasts a given time.
type clockwork struct {
	*scheduler
	now   time.Duration
	lasts func(e *entry) time.Duration
	finds func(e *entry) health.Outcome
	going []going
	began map[*entry][]time.Duration
	most  [2]int // runs at once, of each pool
}

type going struct {
	e   *entry
	end time.Duration
}

func newClockwork() *clockwork {
	return &clockwork{
		scheduler: newScheduler(rand.New(rand.NewPCG(1, 2))), began: map[*entry][]time.Duration{},
		lasts: func(*entry) time.Duration { return time.Millisecond },
		finds: func(*entry) health.Outcome { return health.Passed },
	}
}

func (w *clockwork) new(c *health.Check) *entry {
	e := &entry{task: &task{ref: source.Ref{ID: "t"}}, check: c, tracker: health.NewTracker(c, w.now)}
	w.add(w.now, e)
	return e
}

// until lets time pass, in the order of events.
func (w *clockwork) until(end time.Duration) {
	for {
		for _, e := range w.begin {
			w.began[e] = append(w.began[e], w.now)
			w.going = append(w.going, going{e, w.now + w.lasts(e)})
		}
		w.begin, w.moved = w.begin[:0], w.moved[:0]
		for i := range w.pools {
			w.most[i] = max(w.most[i], w.pools[i].busy)
		}
		at, ok := w.next()
		first := -1
		for i, g := range w.going {
			if !ok || g.end <= at {
				at, ok, first = g.end, true, i
			}
		}
		if !ok || at > end {
			w.now = end
			return
		}
		if w.now = max(w.now, at); first >= 0 {
			e := w.going[first].e
			w.going[first] = w.going[len(w.going)-1]
			w.going = w.going[:len(w.going)-1]
			w.finish(w.now, e, health.Result{Outcome: w.finds(e)})
			continue
		}
		w.tick(w.now)
	}
}

// The first run begins within half a second, the next ones an interval later, give or
// take a tenth, and no two checks stay in step.
func TestChecksAreSpreadOverTheirInterval(t *testing.T) {
	w := newClockwork()
	var all []*entry
	for range 200 {
		all = append(all, w.new(check(t, "tcp://")))
	}
	w.until(time.Minute)
	together := map[time.Duration]int{}
	for _, e := range all {
		if n := len(w.began[e]); n < 5 || n > 8 {
			t.Fatalf("%d runs in a minute", n)
		}
		if first := w.began[e][0]; first > firstWithin {
			t.Errorf("the first run after %s", first)
		}
		for i := 1; i < len(w.began[e]); i++ {
			if d := w.began[e][i] - w.began[e][i-1]; d < 9*time.Second || d > 11*time.Second {
				t.Errorf("%s between two runs", d)
			}
		}
		together[w.began[e][4].Truncate(100*time.Millisecond)]++
	}
	for at, n := range together {
		if n > 30 {
			t.Errorf("%d of 200 runs within 100ms, at %s", n, at)
		}
	}
}

// C7: a run that does not end is never joined by a second one.
func TestRunsNeverOverlap(t *testing.T) {
	w := newClockwork()
	w.lasts = func(*entry) time.Duration { return 35 * time.Second }
	e := w.new(check(t, "tcp://,start-interval=10s"))
	other := w.new(check(t, "tcp://,start-interval=10s"))
	w.until(30 * time.Second)
	if n := len(w.began[e]); n != 1 || e.overruns < 2 {
		t.Errorf("%d runs at once, %d overruns", n, e.overruns)
	}
	if len(w.began[other]) != 1 {
		t.Error("one that hangs keeps another one from its run")
	}
	w.until(36 * time.Second)
	if n := len(w.began[e]); n != 2 {
		t.Errorf("%d runs after the end of the first", n)
	}
}

// C5, C7: with the pool full a check waits its turn, in order; for how long nothing is
// known of its task, nothing is held against it.
func TestPoolsAreBounded(t *testing.T) {
	w := newClockwork()
	hangs := map[*entry]bool{}
	w.lasts = func(e *entry) time.Duration {
		if hangs[e] {
			return time.Hour
		}
		return time.Millisecond
	}
	for range networkRuns {
		hangs[w.new(check(t, "tcp://"))] = true
	}
	var exec, waits []*entry
	for range 3 * programRuns {
		exec = append(exec, w.new(check(t, "exec:/bin/true")))
	}
	w.until(time.Second)
	for range 10 {
		waits = append(waits, w.new(check(t, "tcp://")))
	}
	w.until(time.Minute)
	if w.most[0] != networkRuns || w.most[1] > programRuns {
		t.Errorf("%d and %d runs at once", w.most[0], w.most[1])
	}
	for _, e := range exec {
		if e.runs < 4 {
			t.Errorf("a program was run %d times: it shares no pool with what hangs", e.runs)
		}
	}
	for _, e := range waits {
		if len(w.began[e]) != 0 || e.tracker.State() != health.Starting || e.last.Outcome != health.Unknown {
			t.Errorf("%d runs, %s, %v", len(w.began[e]), e.tracker.State(), e.last)
		}
		if !e.tracker.Blind(w.now) {
			t.Error("nobody is told that nothing is known")
		}
	}
	if w.stats.Starved == 0 {
		t.Error("it is not counted")
	}
	w.remove(waits[0]) // its place in the queue is nobody's
	clear(hangs)
	for i := range w.going {
		w.going[i].end = w.now
	}
	w.until(2 * time.Minute)
	for i, e := range waits {
		if e.removed {
			if len(w.began[e]) > 0 {
				t.Error("what is gone was run")
			}
			continue
		}
		if e.tracker.State() != health.Healthy {
			t.Errorf("check %d is %s after its pool was free", i, e.tracker.State())
		}
	}
	if w.pools[0].busy < 0 || len(w.pools[0].queue) != 0 {
		t.Errorf("%d busy, %d waiting", w.pools[0].busy, len(w.pools[0].queue))
	}
}

// Five thousand checks of which most hang for their timeout: each has its turn, and the
// bounds hold.
func TestFiveThousandChecks(t *testing.T) {
	w := newClockwork()
	w.lasts = func(e *entry) time.Duration { return 20 * time.Millisecond }
	c := check(t, "http://")
	for range 5000 {
		w.new(c)
	}
	w.until(time.Minute)
	healthy := 0
	for e := range w.began {
		if e.tracker.State() == health.Healthy {
			healthy++
		}
	}
	if healthy != 5000 || w.most[0] > networkRuns || w.stats.Starved > 0 {
		t.Errorf("%d healthy, %d at once, %d times starved", healthy, w.most[0], w.stats.Starved)
	}
}

// A check that fails is asked more often, until it is well again.
func TestFailingChecksAreAskedMoreOften(t *testing.T) {
	w := newClockwork()
	sick := false
	w.finds = func(*entry) health.Outcome {
		if sick {
			return health.Failed
		}
		return health.Passed
	}
	e := w.new(check(t, "tcp://"))
	w.until(15 * time.Second)
	sick = true
	w.until(30 * time.Second)
	if e.tracker.State() != health.Failing {
		t.Fatalf("%s 15s after it became sick", e.tracker.State())
	}
	sick = false
	w.until(35 * time.Second)
	if e.tracker.State() != health.Healthy {
		t.Errorf("%s 5s after it became well", e.tracker.State())
	}
}

// What is gone is not looked at again, whatever it was doing.
func TestRemovedChecks(t *testing.T) {
	w := newClockwork()
	w.lasts = func(*entry) time.Duration { return time.Hour }
	running, reported := w.new(check(t, "tcp://")), w.new(check(t, "ttl:1s"))
	ended := false
	w.until(time.Second / 2)
	running.cancel = func() { ended = true }
	w.remove(running)
	w.remove(reported)
	if _, ok := w.next(); ok || !ended {
		t.Error("there is still something to look at, or the run goes on")
	}
	w.finish(w.now, running, health.Result{Outcome: health.Failed})
	if len(w.moved) > 0 || w.pools[0].busy != 0 {
		t.Error("something follows from it")
	}
}
