//go:build !race

package checker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/health"
	"meshd/mesh/internal/probe"
	"meshd/mesh/source"
	"meshd/mesh/source/sourcetest"
	"meshd/state"
)

// world is a checker in a bubble, with a sink and tasks that say what a test wants.
type world struct {
	t *testing.T
	*Checker
	sink  *sink
	mu    sync.Mutex
	says  map[string]health.Outcome // by address and port
	asked map[string]int
}

// sink fails when told to.
type sink struct {
	sourcetest.Sink
	mu    sync.Mutex
	fails error
}

// SetHealth implements source.Sink.
func (s *sink) SetHealth(ctx context.Context, v []source.Verdict) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return s.fails
	}
	return s.Sink.SetHealth(ctx, v)
}

func (s *sink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = err
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, sink: &sink{}, says: map[string]health.Outcome{}, asked: map[string]int{}}
	began := time.Now()
	w.Checker = New(Config{
		Sink: w.sink, Now: func() time.Duration { return time.Since(began) },
		Rand: rand.New(rand.NewPCG(1, 2)), Log: slog.New(slog.DiscardHandler),
		Sandbox: func(_, id string) func(func() error) error {
			if id == "boxed" {
				return func(f func() error) error { return f() }
			}
			return nil
		},
		Probe: func(ctx context.Context, c *health.Check, to probe.Target) health.Result {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.asked[to.Addr.String()]++
			return health.Result{Outcome: w.says[to.Addr.String()], Output: to.Addr.String()}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

// say sets what the target answers from now on.
func (w *world) say(addr string, o health.Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.says[addr] = o
}

func (w *world) count(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[addr]
}

// register tells of a task with the checks, one a line.
func (w *world) register(id string, h state.Health, lines ...string) {
	w.t.Helper()
	var all []*health.Check
	for _, l := range lines {
		all = append(all, check(w.t, l))
	}
	w.Registered([]source.Registered{{
		Ref: source.Ref{Network: "n", ID: id}, Checks: health.Encode(all),
		Endpoint: state.Endpoint{
			ID: id, Service: "web", IP4: netip.MustParseAddr("10.0.0.1"), Health: h,
			Ports: []state.Port{{Number: 53, Proto: state.UDP}, {Number: 80, Proto: state.TCP}},
		},
	}})
}

// verdict waits for some time and then compares what was stated last.
func (w *world) verdict(after time.Duration, id, want string) {
	w.t.Helper()
	time.Sleep(after)
	synctest.Wait()
	got := "nothing"
	if h, ok := w.sink.Health(source.Ref{Network: "n", ID: id}); ok {
		got = h.String()
	}
	if got != want {
		w.t.Errorf("after %s: %s, want %s", after, got, want)
	}
}

func TestTasksComeAndGoWithTheirChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.say("10.0.0.1:80", health.Failed)
		w.register("a", state.HealthStarting, "tcp://,interval=1s,timeout=1s,fall=2")
		w.verdict(10*time.Second, "a", "nothing") // starting, as it was registered
		w.say("10.0.0.1:80", health.Passed)
		w.verdict(1200*time.Millisecond, "a", "passing")
		w.say("10.0.0.1:80", health.Failed)
		w.verdict(2500*time.Millisecond, "a", "failing")
		w.say("10.0.0.1:80", health.Warned)
		w.verdict(2500*time.Millisecond, "a", "passing")
		w.say("10.0.0.1:80", health.Unknown)
		w.verdict(time.Minute, "a", "passing")
		texts, err := w.Conditions(t.Context())
		if err != nil || len(texts) != 1 || !strings.Contains(texts[0], "tcp of task a (10.0.0.1:80)") {
			t.Errorf("%v %v", texts, err)
		}
		w.Registered([]source.Registered{{Ref: source.Ref{Network: "n", ID: "a"}, Gone: true}})
		synctest.Wait()
		n := w.count("10.0.0.1:80")
		time.Sleep(time.Minute)
		if w.count("10.0.0.1:80") != n {
			t.Error("a task that is gone is asked")
		}
	})
}

// C4: a restart and a changed definition keep the verdict, until there is another one.
func TestVerdictsOutliveRestartsAndChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.say("10.0.0.1:80", health.Unknown)
		w.register("up", state.HealthPassing, "tcp://,interval=1s,timeout=1s")
		w.register("down", state.HealthFailing, "tcp://,interval=1s,timeout=1s")
		w.verdict(29*time.Second, "up", "nothing")
		w.verdict(0, "down", "nothing")
		w.verdict(2*time.Second, "up", "starting") // 30s without an answer
		w.say("10.0.0.1:80", health.Passed)
		w.verdict(3*time.Second, "up", "passing")
		w.verdict(0, "down", "passing")
		w.say("10.0.0.1:80", health.Failed)
		w.register("up", state.HealthPassing, "tcp://,interval=1m") // no reset to starting
		w.verdict(time.Second, "up", "passing")
		w.verdict(10*time.Second, "up", "failing")
		w.register("up", state.HealthFailing) // no checks any more
		w.verdict(0, "up", "passing")
	})
}

// The worst check of a task counts, and checks that stay the same go on.
func TestSeveralChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		both := []string{"tcp://:1,fall=1,rise=1", "tcp://:2,name=two,fall=1,rise=1"}
		w.register("a", state.HealthStarting, both...)
		w.say("10.0.0.1:2", health.Failed)
		w.verdict(20*time.Second, "a", "nothing")
		w.say("10.0.0.1:2", health.Passed)
		w.verdict(3*time.Second, "a", "passing")
		w.say("10.0.0.1:2", health.Failed)
		w.verdict(15*time.Second, "a", "failing")
		before, _ := w.Checks(t.Context(), "a")
		w.register("a", state.HealthFailing, both[0])
		w.verdict(0, "a", "passing") // the other one is gone
		after, _ := w.Checks(t.Context(), "a")
		if len(before) != 2 || len(after) != 1 || after[0].Runs != before[0].Runs || after[0].Runs == 0 {
			t.Errorf("the check that stays began anew: %+v, %+v", before, after)
		}
	})
}

func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ref := newWorld(t), source.Ref{ID: "a"}
		w.register("a", state.HealthStarting, "ttl:10s", "tcp://")
		report := func(o health.Outcome, name string) error {
			err := w.Report(t.Context(), ref, name, health.Result{Outcome: o, Output: "said\x1b[1m so"})
			synctest.Wait()
			return err
		}
		w.verdict(time.Second, "a", "nothing")
		if err := report(health.Passed, ""); err != nil {
			t.Error(err)
		}
		w.verdict(9*time.Second, "a", "passing")
		w.verdict(time.Second, "a", "failing")
		if err := report(health.Passed, "ttl"); err != nil {
			t.Error(err)
		}
		w.verdict(0, "a", "passing")
		if err := report(health.Failed, "ttl"); err != nil {
			t.Error(err)
		}
		w.verdict(0, "a", "failing")
		for name, want := range map[string]error{"tcp": ErrNoReport, "other": ErrNoCheck} {
			if err := report(health.Passed, name); !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		all, err := w.Checks(t.Context(), "a")
		if err != nil || len(all) != 2 || all[0].Last.Output != "said[1m so" || all[0].Next >= 0 || all[1].Next < 0 {
			t.Errorf("%+v %v", all, err)
		}
	})
}

// Verdicts that cannot be stated are kept, the last one of each task, and stated later.
func TestVerdictsAreStatedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sink.fail(errors.New("no"))
		for i := range 100 {
			w.register(strconv.Itoa(i), state.HealthStarting, "tcp://,interval=1s,timeout=1s,fall=1")
		}
		w.verdict(5*time.Second, "7", "nothing")
		w.say("10.0.0.1:80", health.Failed)
		time.Sleep(5 * time.Second)
		w.sink.fail(nil)
		w.verdict(2*time.Second, "7", "failing")
		s, err := w.Stats(t.Context())
		if err != nil || s.Failures == 0 || s.Stated != 100 || s.Checks != 100 || s.States[health.Failing] != 100 {
			t.Errorf("%+v %v", s, err)
		}
	})
}

func TestWhatCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.register("bare", state.HealthPassing, "tcp://,from=sandbox")
		w.register("boxed", state.HealthStarting, "tcp://,from=sandbox,address=127.0.0.1")
		w.Registered([]source.Registered{{
			Ref: source.Ref{Network: "n", ID: "newer"}, Checks: []byte(`[{"type":"quantum"}]`),
		}})
		w.verdict(time.Second, "boxed", "passing")
		if w.count("127.0.0.1:80") == 0 {
			t.Error("the loopback address was not asked")
		}
		w.verdict(29*time.Second+500*time.Millisecond, "bare", "starting")
		w.verdict(0, "newer", "nothing")
		texts, err := w.Conditions(t.Context())
		all := strings.Join(texts, "\n")
		if err != nil || !strings.Contains(all, "no sandbox") || !strings.Contains(all, "newer (") {
			t.Errorf("%v %s", err, all)
		}
	})
}
