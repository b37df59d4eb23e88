//go:build linux

// Command real measures real meshd processes, each in a network namespace of
// its own on this machine: how long a change takes until every node's control
// API has told of it. It prints one "converge … real=1" line.
//
// It runs as root, or as an ordinary user where user namespaces are allowed,
// and leaves nothing behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"meshd/test/fleet"
	"meshd/test/rig"
)

type options struct {
	nodes, changes int
	seed           uint64
}

func main() {
	var o options
	flag.IntVar(&o.nodes, "nodes", 25, "how many meshd")
	flag.IntVar(&o.changes, "changes", 300, "how many changes, one after the other")
	flag.Uint64Var(&o.seed, "seed", 1, "of the choice of the nodes that change something")
	flag.Parse()
	code, err := rig.Main(fleet.Build, func(w rig.World) int { return inside(w, o) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "real:", err)
		code = 1
	}
	os.Exit(code)
}

func inside(w rig.World, o options) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := measure(ctx, w, o); err != nil {
		fmt.Fprintln(os.Stderr, "real:", err)
		return 1
	}
	return 0
}

func measure(ctx context.Context, w rig.World, o options) error {
	r, err := rig.New(filepath.Join(w.Dir, "logs"))
	if err != nil {
		return err
	}
	defer r.Close()
	b := &bench{options: o, ctx: ctx}
	if err := b.start(r, w.Dir); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return b.converge()
}
