//go:build linux

package fleet

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"meshd/test/rig"
)

// TB is what [Up] needs of a test.
type TB interface {
	rig.TB
	Failed() bool
	Context() context.Context
}

// NewTest makes a fleet on so many hosts for the length of a test, without
// starting daemons. The package's TestMain must be rig.TestMain(Build, …). If
// the test fails, the daemons' logs are shown.
func NewTest(t TB, hosts int) *Fleet {
	t.Helper()
	r := rig.NewTest(t, hosts)
	f, err := New(r, rig.Dir(), t.TempDir())
	if err != nil {
		t.Fatalf("make fleet: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, r)
		}
	})
	return f
}

// showLogs shows the end of each log that is not empty, once.
func showLogs(t TB, r *rig.Rig) {
	shown := map[string]bool{}
	for _, p := range r.Procs() {
		if end := Tail(p.Log, 20); end != "" && !shown[p.Log] {
			shown[p.Log] = true
			t.Logf("%s ends:\n%s", filepath.Base(p.Log), end)
		}
	}
}

// Up is NewTest with a meshd on each host; they have found each other.
func Up(t TB, hosts int) (*Fleet, []*Node) {
	t.Helper()
	f := NewTest(t, hosts)
	all := f.Rig.Hosts()
	var nodes []*Node
	for i, h := range all {
		n := f.AddNode(h, nil, all[:min(i, 3)]...)
		if err := n.Start(t.Context()); err != nil {
			t.Fatalf("start: %v", err)
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		Within(t, 20*time.Second, func(ctx context.Context) error { return n.Members(ctx, hosts) })
	}
	return f, nodes
}

// Within fails the test if check does not hold in time ([rig.Patience]); it is
// tried again and again.
func Within(t TB, d time.Duration, check func(context.Context) error) {
	t.Helper()
	d = rig.Patience(d)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := rig.Poll(ctx, func() error { return check(ctx) }); err != nil {
		t.Fatalf("not within %v: %v", d, err)
	}
}

// Always fails the test if check fails once within the time given.
func Always(t TB, d time.Duration, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var broken error
	_ = rig.Poll(ctx, func() error { // goes on until ctx ends or check fails
		if broken = check(t.Context()); broken != nil {
			return nil
		}
		return fmt.Errorf("holds so far")
	})
	if broken != nil {
		t.Fatalf("did not hold for %v: %v", d, broken)
	}
}
