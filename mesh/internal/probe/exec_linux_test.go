package probe

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"meshd/mesh/health"
)

// script makes a program of a text for the shell, and returns the check of it.
func script(t *testing.T, text, options string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return "exec:" + path + options
}

func TestPrograms(t *testing.T) {
	to := Target{Env: []string{"MESHD_ADDRESS=10.0.0.1"}}
	wants(t, script(t, "echo $MESHD_ADDRESS; pwd", ""), to, health.Passed, "10.0.0.1\n/")
	wants(t, script(t, "echo so-so; exit 1", ""), to, health.Warned, "so-so")
	wants(t, script(t, "echo bad >&2; exit 2", ""), to, health.Failed, "exit status 2\nbad")
	wants(t, script(t, "kill -9 $$", ""), to, health.Failed, "signal: killed")
	wants(t, script(t, "cat; echo $1", " one"), to, health.Passed, "one") // nothing to read, and arguments
	wants(t, "exec:/nowhere", to, health.Unknown, "cannot be started")
	wants(t, "exec:/etc/passwd", to, health.Unknown, "cannot be started")
	if r := Run(t.Context(), check(t, script(t, "env", "")), to); strings.Contains(r.Output, "GOPATH") ||
		strings.Contains(r.Output, "HOME") {
		t.Errorf("the environment of the node: %s", r.Output)
	}
}

// gone waits until a process has ended, or is only not reaped yet by whoever has it.
func gone(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		for {
			stat, err := os.ReadFile("/proc/" + word + "/stat")
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break
			}
			if t.Context().Err() != nil || syscall.Kill(pid, 0) != nil {
				break
			}
			runtime.Gosched()
		}
	}
}

// A program that hangs, forks or prints without end is over at its timeout, with all of
// its group.
func TestProgramsThatDoNotEnd(t *testing.T) {
	for what, text := range map[string]string{
		"hangs":             "echo $$ >$1; exec sleep 1000",
		"ignores its end":   "trap '' TERM INT HUP; echo $$ >$1; while :; do sleep 1; done",
		"forks and hangs":   "sleep 1000 & echo $! $$ >$1; sleep 1001",
		"prints a gigabyte": "echo $$ >$1; exec yes the same again",
		"forks what prints": "yes & echo $! $$ >$1; wait",
		"stops itself":      "echo $$ >$1; kill -STOP $$",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pids")
			line := script(t, text, " "+file+",interval=1s,timeout=1s")
			wants(t, line, Target{}, health.Failed, "did not end within 1s")
			gone(t, file)
		})
	}
}

// What a program leaves behind at its end goes with it.
func TestProgramsLeaveNothingBehind(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pids")
	wants(t, script(t, "sleep 1000 & echo $! >$1; echo fine", " "+file), Target{}, health.Passed, "fine")
	gone(t, file)
	// One that has left the group keeps the pipe of the output open: nobody waits for it.
	pid := filepath.Join(t.TempDir(), "pids")
	wants(t, script(t, `setsid sh -c 'echo $$ >$0; exec sleep 30' $1 & while [ ! -s $1 ]; do :; done; echo fine`, " "+pid),
		Target{}, health.Passed, "fine")
	if b, err := os.ReadFile(pid); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			syscall.Kill(n, syscall.SIGKILL)
		}
	}
}

func TestProgramsEndWithTheirCheck(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	file := filepath.Join(t.TempDir(), "pids")
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c := check(t, script(t, "echo $$ >$1; echo x >$2; exec sleep 1000", " "+file+" "+fifo))
	done := make(chan health.Result)
	go func() { done <- Run(ctx, c, Target{}) }()
	if _, err := os.ReadFile(fifo); err != nil { // returns when the program is there
		t.Fatal(err)
	}
	cancel()
	if r := <-done; r.Outcome != health.Unknown {
		t.Errorf("%v", r)
	}
	gone(t, file)
}
