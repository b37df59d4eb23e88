//go:build linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// TB is the part of [testing.TB] that the rig needs.
type TB interface {
	Helper()
	Name() string
	TempDir() string
	Cleanup(func())
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
}

// TestMain is the body of a package's TestMain: it runs the tests inside, or,
// where that is not possible, outside with [NewTest] skipping each of them.
func TestMain(prepare func(dir string) error, run func() int) int {
	code, err := Main(prepare, func(World) int { return run() })
	if err == nil {
		return code
	}
	fmt.Fprintln(os.Stderr, "rig:", err)
	if !errors.Is(err, ErrUnavailable) {
		return 1
	}
	_ = os.Setenv(reasonEnv, err.Error())
	return run()
}

// reasonEnv carries the reason for skipping from TestMain to the tests.
const reasonEnv = "MESHD_RIG_REASON"

// NewTest makes a rig with hosts named host1, host2, … for the length of a test.
func NewTest(t TB, hosts int) *Rig {
	t.Helper()
	if why := os.Getenv(reasonEnv); why != "" {
		t.Skipf("%s", why)
	}
	r, err := New(t.TempDir())
	if err != nil {
		t.Fatalf("make rig: %v", err)
	}
	t.Cleanup(r.Close)
	for i := range hosts {
		if _, err := r.AddHost(fmt.Sprintf("host%d", i+1)); err != nil {
			t.Fatalf("add host: %v", err)
		}
	}
	return r
}

// Poll calls check until it returns nil, and returns its last error if that
// has not happened when ctx ends.
func Poll(ctx context.Context, check func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check()
		if err == nil {
			return nil
		}
		if end, ok := ctx.Deadline(); last == nil || !ok || time.Now().Before(end) {
			last = err // else it may only tell that time ran out
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}
