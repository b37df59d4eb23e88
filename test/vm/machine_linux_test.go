package vm_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/test/vm"
	"meshd/test/vm/guest"
)

var machines = flag.Bool("machines", false, "run the tests that boot machines: they need qemu-system-x86_64")

// role makes this binary one of the programs that run in the machine.
const role = "VM_TEST_ROLE"

func TestMain(m *testing.M) {
	if guest.Here() {
		guest.Main()
		return
	}
	if r := os.Getenv(role); r != "" {
		os.Exit(play(r))
	}
	os.Exit(m.Run())
}

func play(role string) int {
	switch role {
	case "look": // prints what it finds
		release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
		host, _ := os.Hostname()
		dir, _ := os.Getwd()
		modules, _ := os.ReadFile("/proc/modules")
		fmt.Printf("%s%s %s %q %v\n", release, host, dir, os.Args[1:], strings.Contains(string(modules), "ip_vs_mh "))
		return 7
	case "much":
		for i := range 2000 {
			fmt.Fprintf([]*os.File{os.Stdout, os.Stderr}[i%2], "%0100d\n", i)
		}
	case "child": // leaves a process behind that holds the output open
		cmd := &os.ProcAttr{Env: []string{"VM_TEST_ROLE=sleep"}, Files: []*os.File{nil, os.Stdout, os.Stderr}}
		if _, err := os.StartProcess("/test", []string{"/test"}, cmd); err != nil {
			fmt.Println(err)
			return 1
		}
	case "file":
		if err := os.WriteFile("/out/file", bytes.Repeat([]byte("0123456789"), 1e4), 0o644); err != nil {
			return 1
		}
	case "sleep":
		pause()
	case "stubborn":
		signal.Ignore(unix.SIGQUIT)
		pause()
	case "die":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	case "panic":
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "hang":
		hang()
	}
	return 0
}

// pause waits for signals only.
func pause() {
	for range 1 << 30 {
		_ = unix.Pause()
	}
}

// hang takes all processors for itself, for ever.
func hang() {
	_ = os.WriteFile("/proc/sys/kernel/sched_rt_runtime_us", []byte("-1"), 0)
	for range 2 {
		go func() {
			attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: 1, Priority: 99} // SCHED_FIFO
			fmt.Println("taking over", unix.SchedSetAttr(0, attr, 0))
			for n := 0; n >= 0; n++ { // a very long time
			}
		}()
	}
	select {}
}

// seen records what comes from a machine.
type seen struct {
	release string
	output  map[int]*bytes.Buffer
	files   map[string]int
	results []vm.Result
	on      func(index int) // with each output
}

func (s *seen) Booted(release string, _ time.Duration) { s.release = release }

func (s *seen) Output(i int, text []byte) {
	if s.output[i] == nil {
		s.output[i] = new(bytes.Buffer)
	}
	s.output[i].Write(text)
	if s.on != nil {
		s.on(i)
	}
}

func (s *seen) File(_ int, path string, contents []byte) { s.files[path] = len(contents) }

func (s *seen) Ended(_ int, r vm.Result) { s.results = append(s.results, r) }

// run boots a machine that plays the roles, each for some seconds at most.
func run(t *testing.T, m vm.Machine, roles ...string) (*seen, error) {
	t.Helper()
	s := &seen{output: map[int]*bytes.Buffer{}, files: map[string]int{}}
	return s, runSeen(t.Context(), t, m, s, roles...)
}

func runSeen(ctx context.Context, t *testing.T, m vm.Machine, s *seen, roles ...string) error {
	t.Helper()
	if !*machines {
		t.Skip("boots machines: go test ./test/vm -machines, as make vm does")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	k, err := vm.FindKernel(ctx, filepath.Join(cache, "meshd-vm"), func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	im, err := vm.NewImage(k, "/proc/self/exe", []string{"ip_vs_mh"})
	if err != nil {
		t.Fatal(err)
	}
	if err := im.AddFile("/test", "/proc/self/exe"); err != nil {
		t.Fatal(err)
	}
	im.AddDir("/out")
	j := vm.Job{Hostname: "host"}
	for _, r := range roles {
		j.Programs = append(j.Programs, vm.Run{
			Path: "/test", Args: []string{"a b", `"'$`}, Env: []string{role + "=" + r}, Dir: "/work/" + r,
			Timeout: 3 * time.Second,
		})
	}
	j.Programs[len(j.Programs)-1].Collect = []string{"/out/file", "/out/none"}
	return m.Run(ctx, im, j, s)
}

func TestPrograms(t *testing.T) {
	s, err := run(t, vm.Machine{Count: true}, "look", "much", "child", "file", "die", "sleep", "stubborn", "look")
	if err != nil {
		t.Fatal(err)
	}
	var codes []int
	for _, r := range s.results {
		codes = append(codes, r.Code)
	}
	if want := []int{7, 0, 0, 0, 137, vm.CodeTimeout, vm.CodeTimeout, 7}; !slices.Equal(codes, want) {
		t.Errorf("exit codes %v, want %v: %+v", codes, want, s.results)
	}
	look := fmt.Sprintf("%s\nhost /work/look %q true\n", s.release, []string{"a b", `"'$`})
	if got := s.output[0].String(); got != look {
		t.Errorf("the first program printed %q, want %q", got, look)
	}
	var much bytes.Buffer
	for i := range 2000 {
		fmt.Fprintf(&much, "%0100d\n", i)
	}
	if got := s.output[1]; !bytes.Equal(got.Bytes(), much.Bytes()) {
		t.Errorf("of %d bytes %d came, or in another order", much.Len(), got.Len())
	}
	if s.files["/out/file"] != 1e5 || len(s.files) != 1 {
		t.Errorf("files %v", s.files)
	}
	if got := s.results[5].Console; !strings.Contains(got, "Show State") || !strings.Contains(got, "task:test") {
		t.Errorf("no list of tasks came with a program that took too long: %q", got)
	}
	if got := s.output[5]; got == nil || !strings.Contains(got.String(), "vm_test.play") {
		t.Errorf("a program that took too long did not tell where it was: %v", got)
	}
}

func TestKernelPanic(t *testing.T) {
	s, err := run(t, vm.Machine{Count: true}, "look", "panic")
	f, ok := errors.AsType[*vm.Failure](err)
	if !ok || f.Hung || !strings.Contains(f.Why, "Kernel panic") || !strings.Contains(f.Console, "sysrq_handle_crash") {
		t.Errorf("got %v", err)
	}
	if len(s.results) != 1 {
		t.Errorf("results %+v", s.results)
	}
}

// A kernel that runs nothing else any more still tells what it does.
func TestHang(t *testing.T) {
	_, err := run(t, vm.Machine{Slack: 5 * time.Second}, "hang")
	f, ok := errors.AsType[*vm.Failure](err)
	if !ok || !f.Hung || !strings.Contains(f.Console, "sysrq: Show State") || !strings.Contains(f.Console, "task:test") {
		t.Errorf("got %v", err)
		if ok {
			t.Logf("the kernel's messages:\n%s", f.Console)
		}
	}
}

func TestKernelThatDoesNotBoot(t *testing.T) {
	_, err := run(t, vm.Machine{MemoryMiB: 16}, "look")
	if f, ok := errors.AsType[*vm.Failure](err); !ok || f.Hung {
		t.Errorf("with too little memory: %v", err)
	}
	_, err = run(t, vm.Machine{CPUs: 100000}, "look")
	if err == nil || !strings.Contains(err.Error(), "Invalid SMP CPUs") {
		t.Errorf("with too many processors: %v", err)
	}
	_, err = run(t, vm.Machine{QEMU: "no-such-emulator"}, "look")
	if err == nil || !strings.Contains(err.Error(), "apt-get install qemu-system-x86") {
		t.Errorf("without QEMU: %v", err)
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &seen{output: map[int]*bytes.Buffer{}, files: map[string]int{}, on: func(int) { cancel() }}
	if err := runSeen(ctx, t, vm.Machine{}, s, "much", "sleep"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Where the clock counts instructions, a program of no input takes the same
// time at each run, but for what the machine's own start changes.
func TestCountedClock(t *testing.T) {
	s, err := run(t, vm.Machine{Count: true}, "look")
	if err != nil || len(s.results) != 1 || s.results[0].Code != 7 {
		t.Errorf("got %+v, %v", s.results, err)
	}
}
