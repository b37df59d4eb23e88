package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A signal ends also what waits for a terminal that nobody types on, with a code
// that is no answer of meshd.
func TestInterruptedRead(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process")
	}
	in, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer typed.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "key", "install", "-")
	cmd.Env, cmd.Stdin = append(os.Environ(), "BE_MESHCTL=1"), in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(100 * time.Millisecond) // it may not listen yet
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || ctx.Err() != nil || exit.ExitCode() != exitInterrupted && exit.ExitCode() != -1 { // -1: by a second signal
				t.Errorf("after an interrupt: %v, %v", err, ctx.Err())
			}
			return
		case <-tick.C:
			if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
		}
	}
}

// A command that is interrupted before meshd answers does not pass for one that
// meshd refused.
func TestInterruptedCall(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	p := program{stdout: &stdout, stderr: &stderr, getenv: b.env, now: time.Now}
	if code := p.run(ctx, []string{"task", "rm", "x"}); code != exitInterrupted ||
		!strings.Contains(stderr.String(), "interrupted") || strings.Contains(stderr.String(), "canceled") {
		t.Errorf("exit %d, %s", code, &stderr)
	}
}
