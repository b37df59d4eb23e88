package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/test/vm"
)

func TestFilesThatGoTestAsksFor(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-test.v -test.run=X", ""},
		{"-test.coverprofile=/abs/c.out -test.cpuprofile=cpu.out", "/abs/c.out /work/cpu.out"},
		{"-test.coverprofile=c.out -test.outputdir=/out -test.testlogfile=/b/log", "/out/c.out /b/log"},
		{"coverprofile=c.out -test.coverprofile", ""},
	} {
		if got := strings.Join(collected("/work", strings.Fields(tt.args)), " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.args, got, tt.want)
		}
	}
}

func TestTimeLimit(t *testing.T) {
	o := &options{timeout: time.Hour}
	for args, want := range map[string]time.Duration{
		"": time.Hour, "-test.timeout=2m0s -x": 2*time.Minute + margin, "-test.timeout=0": time.Hour,
		"-test.timeout=x": time.Hour,
	} {
		if got := o.limit(strings.Fields(args)); got != want {
			t.Errorf("%q: got %v, want %v", args, got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	o, rest, err := parse("run", strings.Fields("-m 512 -icount -file /a=b=c -file /d=e -env A=b -env HOME=/here "+
		"-tools ip,nft prog -test.v"))
	if err != nil {
		t.Fatal(err)
	}
	if o.machine.MemoryMiB != 512 || !o.machine.Count || !slices.Equal(rest, []string{"prog", "-test.v"}) ||
		!slices.Equal(o.files, pairs{{"/a", "b=c"}, {"/d", "e"}}) || !slices.Equal(split(o.tools), []string{"ip", "nft"}) {
		t.Errorf("got %+v, %q", o, rest)
	}
	t.Setenv("MESHD_X", "1")
	t.Setenv("SECRET", "1")
	env := strings.Join(o.environment("/work"), " ")
	if !strings.Contains(env, "PWD=/work") || !strings.Contains(env, "MESHD_X=1") ||
		!strings.HasPrefix(env, "A=b HOME=/here ") ||
		strings.Count(env, "HOME=") != 1 || strings.Contains(env, "SECRET") {
		t.Errorf("environment %s", env)
	}
	for _, bad := range []string{"-file /a", "-file =b", "-file a=", "-m x", "-run X"} {
		if _, _, err := parse("run", strings.Fields(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
	for _, bad := range []string{"", "walk", "run", "test"} {
		if code, err := command(t.Context(), strings.Fields(bad)); code != 2 || err == nil {
			t.Errorf("vm %s: code %d, %v", bad, code, err)
		}
	}
}

// What tests print in pieces is counted and shown in lines.
func TestReport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r := &report{suites: []suite{{pkg: "meshd/a"}, {pkg: "meshd/b"}}, out: out}
	r.Booted("6.1", 3*time.Second)
	text := "=== RUN   TestA\n    a_test.go:1: said\n--- PASS: TestA (0.00s)\n    --- SKIP: TestA/b (0.00s)\n--- FAIL: " +
		"TestC\nFAIL\nno newline"
	for _, piece := range strings.SplitAfter(text, "T") {
		r.Output(0, []byte(piece))
	}
	r.Ended(0, vm.Result{Code: 1, Duration: time.Second})
	r.Output(1, []byte("--- PASS: TestD\nPASS\n"))
	r.Ended(1, vm.Result{Duration: time.Second})
	r.begin = time.Now()
	r.summary(r.code)
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := `vm: Linux 6.1, up after 3.0 s
    a_test.go:1: said
--- PASS: TestA (0.00s)
    --- SKIP: TestA/b (0.00s)
--- FAIL: TestC
no newline
FAIL	meshd/a	1.0s	exit code 1
--- PASS: TestD
ok  	meshd/b	1.0s
vm: FAIL: 2 tests passed, 1 failed, 1 skipped; 2 of 2 packages ran, 1 failed; Linux 6.1, up after 3.0 s, all in 0 s
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
