//go:build linux

package checker

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meshd/mesh/health"
	"meshd/mesh/internal/probe"
	"meshd/mesh/source"
	"meshd/mesh/source/sourcetest"
	"meshd/state"
)

// serverEnv makes this program the server of BenchmarkChecks, so that what it costs is
// another process's.
const serverEnv = "MESHD_BENCH_SERVER"

// TestServerOfBenchmark is that server. It says its address and serves until its input ends.
func TestServerOfBenchmark(t *testing.T) {
	if os.Getenv(serverEnv) == "" {
		t.Skip("it is run by BenchmarkChecks")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	fmt.Println(l.Addr())
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

// server starts it.
func server(b *testing.B) netip.AddrPort {
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run", "^TestServerOfBenchmark$")
	cmd.Env = append(os.Environ(), serverEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	at, err := netip.ParseAddrPort(strings.TrimSpace(line))
	if err != nil {
		b.Fatal(err)
	}
	return at
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// verdicts is a sink that says when each failing verdict arrived.
type verdicts struct {
	sourcetest.Sink
	mu     sync.Mutex
	failed map[string]time.Time
}

// SetHealth implements source.Sink.
func (s *verdicts) SetHealth(ctx context.Context, all []source.Verdict) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range all {
		if v.Health == state.HealthFailing {
			s.failed[v.Ref.ID] = time.Now()
		}
	}
	return s.Sink.SetHealth(ctx, all)
}

// sickness makes tasks fail: the first answer of each that does is noted.
type sickness struct {
	mu    sync.Mutex
	from  time.Time            // from then on every tenth task fails
	first map[string]time.Time // failing answer, by task
}

func (s *sickness) probe(ctx context.Context, c *health.Check, to probe.Target) health.Result {
	r := probe.Run(ctx, c, to)
	id := strings.TrimPrefix(to.Env[2], "MESHD_TASK=")
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.from.IsZero() && strings.HasSuffix(id, "0") {
		r.Outcome = health.Failed
		if s.first[id].IsZero() {
			s.first[id] = time.Now()
		}
	}
	return r
}

// BenchmarkChecks runs HTTP checks of one host against a server in another process:
// their processor time and memory, and from the first failing answer of a tenth of the
// tasks until the verdict is handed to the sink. It takes half a minute, however often
// it is to be run.
func BenchmarkChecks(b *testing.B) {
	for _, x := range []struct {
		checks int
		line   string
	}{
		{5000, "http://"},
		{500, "http://,interval=300ms,fall=2"},
	} {
		benchmark(b, x.checks, x.line)
	}
}

func benchmark(b *testing.B, checks int, line string) {
	at, began := server(b), time.Now()
	line = strings.Replace(line, "http://", fmt.Sprintf("http://:%d/", at.Port()), 1)
	sink, sick := &verdicts{failed: map[string]time.Time{}}, &sickness{first: map[string]time.Time{}}
	c := New(Config{
		Sink: sink, Now: func() time.Duration { return time.Since(began) }, Rand: rand.New(rand.NewPCG(1, 2)),
		Log: slog.New(slog.DiscardHandler), Probe: sick.probe,
	})
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	before := heapInUse()
	register(b, c, checks, line, at)
	pause(b, 5*time.Second)
	first, err := c.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	used, since := processorTime(b), time.Now()
	pause(b, 20*time.Second)
	cpu := (processorTime(b) - used).Seconds() / time.Since(since).Seconds() * 100
	last, err := c.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	rate := float64(last.Results[health.Passed]-first.Results[health.Passed]) / time.Since(since).Seconds()
	fmt.Printf("checks n=%d check=%q runs_per_s=%.0f cpu_percent_of_a_core=%.1f us_per_run=%.0f heap_kib=%d healthy=%d "+
		"starved=%d overruns=%d load1=%s\n", checks, line, rate, cpu, cpu*1e4/rate, (heapInUse()-before)/1024,
		last.States[health.Healthy], last.Starved, last.Overruns, load())
	told(b, sink, sick, checks/10, line)
}

// told makes a tenth of the tasks fail and waits until their verdicts are handed in.
func told(b *testing.B, sink *verdicts, sick *sickness, n int, line string) {
	sick.mu.Lock()
	sick.from = time.Now()
	sick.mu.Unlock()
	for limit := time.Now().Add(time.Minute); ; {
		sink.mu.Lock()
		have := len(sink.failed)
		sink.mu.Unlock()
		if have >= n || time.Now().After(limit) {
			break
		}
		pause(b, 100*time.Millisecond)
	}
	sink.mu.Lock()
	defer sink.mu.Unlock()
	sick.mu.Lock()
	defer sick.mu.Unlock()
	var took []time.Duration
	for id, at := range sink.failed {
		took = append(took, at.Sub(sick.first[id]))
	}
	slices.Sort(took)
	if len(took) < n {
		b.Fatalf("%d of %d tasks failed", len(took), n)
	}
	fmt.Printf("verdict n=%d check=%q first_failure_to_sink_p50_ms=%d p99_ms=%d max_ms=%d load1=%s\n", len(took), line,
		took[len(took)/2].Milliseconds(), took[len(took)*99/100].Milliseconds(), took[len(took)-1].Milliseconds(), load())
}

func register(b *testing.B, c *Checker, n int, line string, at netip.AddrPort) {
	encoded := health.Encode([]*health.Check{check(b, line)})
	all := make([]source.Registered, n)
	for i := range all {
		id := fmt.Sprintf("t%d", i)
		all[i] = source.Registered{
			Ref: source.Ref{Network: "n", ID: id}, Checks: encoded,
			Endpoint: state.Endpoint{ID: id, Service: "web", IP4: at.Addr(), Health: state.HealthStarting},
		}
	}
	c.Registered(all)
}

// pause lets time pass: it is what is measured.
func pause(b *testing.B, d time.Duration) {
	select {
	case <-time.After(d):
	case <-b.Context().Done():
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
