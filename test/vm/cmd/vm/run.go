package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meshd/test/vm"
)

// run runs one program where it is called: the same directory, with its
// testdata, and files that go test asks for come back.
func (o *options) run(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New("usage: vm run [flags] program [args]")
	}
	im, err := o.image(ctx)
	if err != nil {
		return vm.CodeMachine, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return vm.CodeMachine, err
	}
	program, err := filepath.Abs(args[0])
	if err != nil {
		return vm.CodeMachine, err
	}
	r := vm.Run{
		Path: program, Args: args[1:], Env: o.environment(dir), Dir: dir, Timeout: o.limit(args[1:]),
		Collect: collected(dir, args[1:]),
	}
	if err := errors.Join(im.AddProgram(program, program), addTestdata(im, dir)); err != nil {
		return vm.CodeMachine, err
	}
	for _, file := range r.Collect {
		im.AddDir(filepath.Dir(file))
	}
	w := &show{allowed: r.Collect}
	err = o.machine.Run(ctx, im, vm.Job{Hostname: "vm", Programs: []vm.Run{r}}, w)
	if code, failed := failure(err); failed {
		return code, err
	}
	if w.last.Error != "" {
		printConsole(w.last.Console)
		fmt.Fprintln(os.Stderr, "vm:", w.last.Error)
	}
	return w.last.Code, errors.Join(w.errs...)
}

// limit is how long a program may run: a test binary's own limit comes first.
func (o *options) limit(args []string) time.Duration {
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "-test.timeout="); ok {
			if d, err := time.ParseDuration(value); err == nil && d > 0 {
				return d + margin
			}
		}
	}
	return o.timeout
}

func addTestdata(im *vm.Image, dir string) error {
	data := filepath.Join(dir, "testdata")
	if s, err := os.Stat(data); err != nil || !s.IsDir() {
		return nil
	}
	return im.AddFile(data, data)
}

// failure prints the log of a machine that failed and returns the exit code.
func failure(err error) (code int, failed bool) {
	if err == nil {
		return 0, false
	}
	f, ok := errors.AsType[*vm.Failure](err)
	if !ok {
		return vm.CodeMachine, true
	}
	printConsole(f.Console)
	if f.Hung {
		return vm.CodeTimeout, true
	}
	return vm.CodeMachine, true
}

func printConsole(text string) {
	if text = strings.TrimRight(text, "\n"); text != "" {
		fmt.Fprintf(os.Stderr, "--- the kernel's messages\n%s\n---\n", text)
	}
}

// collected lists the files that the flags make a test binary write.
func collected(dir string, args []string) []string {
	flags := []string{"coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace", "testlogfile"}
	out := dir
	var files []string
	for _, arg := range args {
		name, value, ok := strings.Cut(strings.TrimPrefix(arg, "-test."), "=")
		switch {
		case !ok || !strings.HasPrefix(arg, "-test."):
		case name == "outputdir":
			out = value
		case slices.Contains(flags, name):
			files = append(files, value)
		}
	}
	for i, file := range files {
		if !filepath.IsAbs(file) {
			files[i] = filepath.Join(out, file)
		}
	}
	return files
}

// show prints what one program prints.
type show struct {
	allowed []string // files that may be written here
	last    vm.Result
	errs    []error
}

func (s *show) Booted(string, time.Duration) {}

func (s *show) Output(_ int, text []byte) { _, _ = os.Stdout.Write(text) }

func (s *show) File(_ int, path string, contents []byte) {
	if slices.Contains(s.allowed, path) {
		s.errs = append(s.errs, os.WriteFile(path, contents, 0o644)) //nolint:gosec // as go test writes them
	}
}

func (s *show) Ended(_ int, r vm.Result) { s.last = r }
