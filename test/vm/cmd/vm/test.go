package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"meshd/test/vm"
)

// suite is one package's tests.
type suite struct {
	pkg, dir string
	binary   string
}

// test builds the tests of packages and runs them all in one machine.
func (o *options) test(ctx context.Context, patterns []string) (int, error) {
	begin := time.Now()
	if len(patterns) == 0 {
		return 2, errors.New("usage: vm test [flags] packages")
	}
	im, err := o.image(ctx)
	if err != nil {
		return vm.CodeMachine, err
	}
	work, err := os.MkdirTemp("", "meshd-vm-tests-")
	if err != nil {
		return vm.CodeMachine, err
	}
	defer os.RemoveAll(work)
	suites, err := build(ctx, work, patterns)
	if err != nil {
		return 1, err
	}
	job := vm.Job{Hostname: "vm"}
	r := &report{suites: suites, out: os.Stdout, begin: begin}
	for _, s := range suites {
		run, err := o.suite(im, s)
		if err != nil {
			return vm.CodeMachine, err
		}
		job.Programs = append(job.Programs, run)
	}
	err = o.machine.Run(ctx, im, job, r)
	code, failed := failure(err)
	if !failed {
		code = r.code
	}
	r.summary(code)
	return code, err
}

// suite puts one package's tests into the image and tells how to run them.
func (o *options) suite(im *vm.Image, s suite) (vm.Run, error) {
	inside := "/tests/" + filepath.Base(s.binary)
	args := []string{"-test.v", "-test.paniconexit0", "-test.timeout=" + o.timeout.String()}
	if o.pattern != "" {
		args = append(args, "-test.run="+o.pattern)
	}
	if o.skip != "" {
		args = append(args, "-test.skip="+o.skip)
	}
	run := vm.Run{Path: inside, Args: args, Env: o.environment(s.dir), Dir: s.dir, Timeout: o.timeout + margin}
	return run, errors.Join(im.AddProgram(inside, s.binary), addTestdata(im, s.dir))
}

// margin is what a test binary has to report its own timeout.
const margin = 30 * time.Second

// build compiles the tests of every package that has some.
func build(ctx context.Context, work string, patterns []string) ([]suite, error) {
	const format = `{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{"\t"}}{{.Dir}}{{end}}`
	text, err := goTool(ctx, append([]string{"list", "-f", format}, patterns...)...)
	if err != nil {
		return nil, err
	}
	var suites []suite
	for line := range strings.Lines(text) {
		pkg, dir, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			continue
		}
		s := suite{pkg: pkg, dir: dir, binary: filepath.Join(work, strings.ReplaceAll(pkg, "/", "_")+".test")}
		if _, err := goTool(ctx, "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", s.binary, pkg); err != nil {
			return nil, err
		}
		suites = append(suites, s)
	}
	if len(suites) == 0 {
		return nil, fmt.Errorf("no tests in %s", strings.Join(patterns, " "))
	}
	return suites, nil
}

// goTool runs the go command, for programs without C.
func goTool(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return out.String(), nil
}

// report follows the output of a run of tests, and sums it up.
type report struct {
	suites []suite   // those that run
	out    *os.File  // where the output goes on to
	begin  time.Time // of the run
	boot   string    // which kernel runs, and how fast it was up
	rest   []byte    // of a line that is not complete yet

	passed, failed, skipped int // tests
	ended, broken           int // packages
	code                    int // the exit code: 1 if a package failed
}

func (r *report) Booted(release string, after time.Duration) {
	r.boot = fmt.Sprintf("Linux %s, up after %.1f s", release, after.Seconds())
	fmt.Fprintln(r.out, "vm:", r.boot)
}

var verdict = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): `)

func (r *report) Output(_ int, text []byte) {
	r.rest = append(r.rest, text...)
	for {
		line, rest, whole := bytes.Cut(r.rest, []byte("\n"))
		if !whole {
			return
		}
		r.line(line)
		r.rest = rest
	}
}

// line prints a line unless it only tells which test is at work.
func (r *report) line(line []byte) {
	if v := verdict.FindSubmatch(line); v != nil {
		switch string(v[1]) {
		case "PASS":
			r.passed++
		case "FAIL":
			r.failed++
		case "SKIP":
			r.skipped++
		}
	}
	if bytes.HasPrefix(line, []byte("=== ")) || bytes.Equal(line, []byte("PASS")) || bytes.Equal(line, []byte("FAIL")) {
		return
	}
	fmt.Fprintf(r.out, "%s\n", line)
}

func (r *report) File(int, string, []byte) {}

func (r *report) Ended(i int, res vm.Result) {
	if len(r.rest) > 0 {
		r.line(r.rest)
		r.rest = nil
	}
	r.ended++
	word, why := "ok  ", ""
	if res.Code != 0 {
		r.broken++
		r.code, word, why = 1, "FAIL", fmt.Sprintf("\texit code %d", res.Code)
		printConsole(res.Console)
		if res.Error != "" {
			why += ": " + res.Error
		}
	}
	fmt.Fprintf(r.out, "%s\t%s\t%.1fs%s\n", word, r.suites[i].pkg, res.Duration.Seconds(), why)
}

func (r *report) summary(code int) {
	word := "PASS"
	if code != 0 {
		word = "FAIL"
	}
	fmt.Fprintf(r.out, "vm: %s: %d tests passed, %d failed, %d skipped; %d of %d packages ran, %d failed; %s, all in "+
		"%.0f s\n",
		word, r.passed, r.failed, r.skipped, r.ended, len(r.suites), r.broken, r.boot, time.Since(r.begin).Seconds())
}
