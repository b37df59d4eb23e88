//go:build !race

package lb_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/state"
)

// text formats findings with what became of them, one a line.
func text(r lb.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s | repaired %v %s\n", f, f.Repaired, f.Outcome)
	}
	return b.String()
}

// vandalize changes a service of two backends in every way.
func vandalize(kernel *lbtest.Fake, k lb.Key) {
	changed := *kernel.Kernel().Services[k]
	changed.Scheduler = "sh"
	foreign := changed
	foreign.Key.Port = 81
	foreign.Backends = nil
	at := func(a string, weight uint32) lb.Backend {
		return lb.Backend{Addr: netip.MustParseAddrPort(a), Weight: weight}
	}
	kernel.ChangeKernel(
		lb.Op{Kind: lb.SetService, Key: k, Service: &changed},
		lb.Op{Kind: lb.SetBackend, Key: k, Backend: at("10.0.0.1:80", 7)},
		lb.Op{Kind: lb.DelBackend, Key: k, Backend: at("10.0.0.2:80", 0)},
		lb.Op{Kind: lb.SetBackend, Key: k, Backend: at("10.9.9.9:80", 1)},
		lb.Op{Kind: lb.SetService, Key: foreign.Key, Service: &foreign},
		lb.Op{Kind: lb.SetBackend, Key: foreign.Key, Backend: at("10.9.9.9:81", 1)},
	)
	kernel.InjectFindings(lb.Finding{Area: lb.AreaRule, Kind: lb.FindingMissing, What: "guard rule"})
}

const vandalized = `guard rule: missing | repaired true 
service 10.96.0.1:80/tcp: changed, found sh, want wrr | repaired true 
backend 10.0.0.1:80 of service 10.96.0.1:80/tcp: changed, found weight 7, want weight 1 | repaired true 
backend 10.0.0.2:80 of service 10.96.0.1:80/tcp: missing, want weight 1 | repaired true 
backend 10.9.9.9:80 of service 10.96.0.1:80/tcp: extra, found weight 1 | repaired true it goes when its connections have ended
service 10.96.0.1:81/tcp: extra, found sh with 1 backends | repaired true it goes when its connections have ended
`

// Rule L1: what somebody else changed is repaired within one verify period, and
// told of; at once if asked to.
func TestVerify(t *testing.T) {
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w, kernel := newWorld(t, "net"), &lbtest.Fake{}
			var told []lb.Report
			b := run(t, w, lb.Config{Grace: time.Nanosecond, OnDrift: func(r lb.Report) { told = append(told, r) }}, kernel)
			w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
			after(time.Second)
			want, k := dump(kernel.Kernel()), key("10.96.0.1", 80)
			kernel.SetActive(k, netip.MustParseAddrPort("10.9.9.9:80"), 1)
			vandalize(kernel, k)
			var report lb.Report
			if asked {
				var err error
				if report, err = b.Verify(t.Context(), true); err != nil {
					t.Fatal(err)
				}
			} else {
				after(30 * time.Second) // the default period
				if len(told) != 1 {
					t.Fatalf("told of %d reports", len(told))
				}
				report = told[0]
			}
			if got := text(report); got != vandalized || inSync(report) || !report.Full {
				t.Errorf("asked %v: %+v\n%s", asked, report, got)
			}
			latest, drifted := b.LastReport()
			if latest == nil || drifted == nil || len(drifted.Findings) != 6 {
				t.Errorf("kept %+v, %+v", latest, drifted)
			}
			after(time.Minute) // the extra backend's deadline
			if got := dump(kernel.Kernel()); got != want {
				t.Errorf("asked %v: the kernel has\n%s", asked, got)
			}
			again, err := b.Verify(t.Context(), true)
			if err != nil || !inSync(again) || again.Services != 1 || again.Backends != 2 {
				t.Errorf("again: %+v, %v", again, err)
			}
			c := b.Counters()
			if c.Repairs != 1 || c.Drift[lb.Drift{Area: lb.AreaBackend, Kind: lb.FindingExtra}] != 1 ||
				c.Verifies[lb.VerifyDrift] != 1 ||
				c.Verifies[lb.VerifyOK] < 2 || c.Verifies[lb.VerifyError] != 0 {
				t.Errorf("%+v", c)
			}
			noFaults(t, kernel)
		})
	}
}

// A verify that only reports changes nothing, and does not hide what it found
// from the next one.
func TestVerifyReportsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		b := run(t, w, lb.Config{Grace: time.Nanosecond}, kernel)
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		after(time.Second)
		vandalize(kernel, key("10.96.0.1", 80))
		bad := dump(kernel.Kernel())
		for range 2 {
			r, err := b.Verify(t.Context(), false)
			if got := text(r); err != nil || strings.Contains(got, "repaired true") || strings.Count(got, "\n") != 6 {
				t.Errorf("%v:\n%s", err, got)
			}
			if got := dump(kernel.Kernel()); got != bad {
				t.Fatalf("it changed the kernel to\n%s", got)
			}
		}
		if c := b.Counters(); c.Repairs != 0 {
			t.Errorf("%+v", c)
		}
		r, err := b.Verify(t.Context(), true)
		if got := text(r); err != nil || got != vandalized {
			t.Errorf("then repaired, %v:\n%s", err, got)
		}
	})
}

// watchful is a kernel that tells whether anybody touched it.
type watchful struct {
	*lbtest.Fake
	touched bool
}

func (w *watchful) Untouched(context.Context) bool { return !w.touched }

// Services are read back only when they may have changed.
func TestVerifyOfTheUntouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &watchful{Fake: &lbtest.Fake{}}
		b := run(t, w, lb.Config{Audit: 10 * time.Minute}, kernel)
		after(9 * time.Minute)
		if n := kernel.Snapshots(); n != 1 {
			t.Errorf("untouched: read back %d times", n)
		}
		kernel.touched = true
		after(31 * time.Second)
		if n := kernel.Snapshots(); n != 2 {
			t.Errorf("touched: read back %d times", n)
		}
		kernel.touched = false
		after(10 * time.Minute)
		if n := kernel.Snapshots(); n != 3 {
			t.Errorf("after the audit time: read back %d times", n)
		}
		if c := b.Counters(); c.Repairs != 0 || c.Audits != 3 {
			t.Errorf("%+v", c)
		}
	})
}

// slow is a kernel that takes its time to be read.
type slow struct {
	*lbtest.Fake
	takes time.Duration
}

func (s *slow) Snapshot(ctx context.Context) (*lb.Table, error) {
	timer := time.NewTimer(s.takes)
	<-timer.C
	return s.Fake.Snapshot(ctx)
}

// Reading back takes a bounded share of the time.
func TestVerifyOfALargeTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &slow{&lbtest.Fake{}, 6 * time.Second}
		run(t, newWorld(t, "net"), lb.Config{}, kernel)
		after(time.Hour)
		if n := kernel.Snapshots(); n < 9 || n > 12 {
			t.Errorf("read back %d times in an hour, 6 s each; want every fifth minute", n)
		}
	})
}

// An operation that meets somebody else's change makes the balancer look at
// once, and tell.
func TestDriftOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		b := run(t, w, lb.Config{Grace: time.Nanosecond, Verify: time.Hour}, kernel)
		w.commit("net", append(w.tasks("web", 2, "80/tcp"), vip("web", "10.96.0.1"))...)
		after(time.Second)
		kernel.ChangeKernel(lb.Op{Kind: lb.DelService, Key: key("10.96.0.1", 80)})
		w.commit("net", w.task("web-2", "web", "10.0.0.9", 1, "80/tcp"))
		after(time.Second)
		if s := kernel.Kernel().Services[key("10.96.0.1", 80)]; s == nil || len(s.Backends) != 3 {
			t.Errorf("the service is %+v", s)
		}
		_, drifted := b.LastReport()
		if drifted == nil || drifted.Findings[0].String() != "service 10.96.0.1:80/tcp: missing, want wrr with 2 backends" ||
			!drifted.Findings[0].Repaired {
			t.Errorf("report %+v", drifted)
		}
		if c := b.Counters(); c.Pending != 0 || c.LastError != "" {
			t.Errorf("%+v", c)
		}
	})
}

// mute is a kernel that cannot be asked for a while.
type mute struct {
	*lbtest.Fake
	until time.Time
}

func (m *mute) Check(ctx context.Context) ([]lb.Finding, error) {
	if time.Now().Before(m.until) {
		return nil, fmt.Errorf("no answer")
	}
	return m.Fake.Check(ctx)
}

// What is programmed goes on working while the kernel cannot be asked, and
// trouble ends with the next answer.
func TestVerifyOfAMuteKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &mute{Fake: &lbtest.Fake{}}
		b := run(t, newWorld(t, "net"), lb.Config{Grace: time.Nanosecond}, kernel)
		after(time.Second)
		kernel.until = time.Now().Add(40 * time.Second)
		after(35 * time.Second)
		if c := b.Counters(); !b.Working("net") || !strings.Contains(c.LastError, "no answer") ||
			c.Verifies[lb.VerifyError] < 2 {
			t.Errorf("mute: working %v, %+v", b.Working("net"), c)
		}
		after(30 * time.Second)
		latest, _ := b.LastReport()
		if c := b.Counters(); c.LastError != "" || latest.Result() != lb.VerifyOK {
			t.Errorf("later: %+v, %+v", c, latest)
		}
	})
}

// Without a driver, a verify says why there is nothing to compare.
func TestVerifyWithoutDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusing := &lbtest.Fake{DriverName: "ipvs", Refuse: fmt.Errorf("%w: kernel has no IPVS", lb.ErrUnsupported)}
		b := run(t, newWorld(t, "net"), lb.Config{}, refusing)
		after(time.Second)
		r, err := b.Verify(t.Context(), true)
		if err != nil || inSync(r) || !strings.Contains(r.Error, "kernel has no IPVS") {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// Without a driver, the log says why, once, and what works instead.
func TestTroubleAtTheStartIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		refusing := &lbtest.Fake{DriverName: "ipvs", Refuse: fmt.Errorf("%w: kernel has no IPVS; load the module ip_vs",
			lb.ErrUnsupported)}
		b, err := lb.New(lb.Config{
			Source: newWorld(t, "net").store, Log: slog.New(slog.NewTextHandler(&log, nil)), Drivers: []lb.Driver{refusing},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "load the module ip_vs") ||
			!strings.Contains(got, "answered with their tasks") {
			t.Errorf("the log is\n%s", got)
		}
	})
}

// Rule L5: what only drains is called so, with the time at which it goes.
func TestStatusOfDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel := newWorld(t, "net"), &lbtest.Fake{}
		b := run(t, w, lb.Config{Grace: time.Nanosecond}, kernel)
		w.commit("net", append(w.tasks("web", 3, "80/tcp"), vip("web", "10.96.0.1"))...)
		after(time.Second)
		k, leaving := key("10.96.0.1", 80), netip.MustParseAddrPort("10.0.0.3:80")
		kernel.SetActive(k, leaving, 1)
		w.commit("net", gone("web-2"))
		after(time.Second)
		states := func() string {
			s, err := b.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, one := range s.Services {
				out = append(out, one.Key.String()+" of "+one.Network+"/"+one.Name+" "+string(one.State))
				for _, x := range one.Backends {
					out = append(out, fmt.Sprintf("%s %s %d/%d deadline %v", x.Addr, x.State, x.Actual, x.Desired,
						!x.Deadline.IsZero()))
				}
			}
			return strings.Join(out, "\n")
		}
		want := `10.96.0.1:80/tcp of net/web draining
10.0.0.1:80 ok 1/1 deadline false
10.0.0.2:80 ok 1/1 deadline false
10.0.0.3:80 draining 0/-1 deadline true`
		if got := states(); got != want {
			t.Errorf("a backend drains:\n%s", got)
		}
		after(30 * time.Second)
		if got := states(); strings.Contains(got, "draining") || !strings.HasPrefix(got, "10.96.0.1:80/tcp of net/web ok") {
			t.Errorf("past the deadline:\n%s", got)
		}
		for _, a := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
			kernel.SetActive(k, netip.MustParseAddrPort(a), 1)
		}
		w.commit("net", gone("web-0"), gone("web-1"), state.Change{Kind: state.KindVIP, Key: "web", Delete: true})
		after(time.Second)
		if got := states(); !strings.HasPrefix(got, "10.96.0.1:80/tcp of net/web draining") {
			t.Errorf("a service drains:\n%s", got)
		}
		kernel.ChangeKernel(lb.Op{Kind: lb.SetBackend, Key: k, Backend: lb.Backend{
			Addr:   netip.MustParseAddrPort("10.0.0.1:80"),
			Weight: 3,
		}})
		r, err := b.Verify(t.Context(), true) // what drains keeps its name
		if err != nil || len(r.Findings) != 1 || !r.Findings[0].Repaired {
			t.Fatalf("%+v, %v", r, err)
		}
		if got := states(); !strings.HasPrefix(got, "10.96.0.1:80/tcp of net/web draining") {
			t.Errorf("a service drains, after a verify:\n%s", got)
		}
		c := b.Counters()
		if c.Drains[lb.DrainDeadline] != 1 || c.Draining != 2 {
			t.Errorf("%+v", c)
		}
	})
}

// inSync reports whether the kernel was as it was left, and is as it should be.
func inSync(r lb.Report) bool { return r.Result() == lb.VerifyOK && r.Pending == 0 }
