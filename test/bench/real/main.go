//go:build linux

// Command real measures real meshd processes, each in a network namespace of
// its own on this machine: how long a change takes until every node's control
// API has told of it. It prints one "converge … real=1" line, and with -all a
// "scale … real=1" line for each thing that is done to the mesh.
//
// It runs as root, or as an ordinary user where user namespaces are allowed,
// and leaves nothing behind.
package main

import (
	"context"
	"errors"
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
	all            bool
}

func main() {
	var o options
	flag.IntVar(&o.nodes, "nodes", 25, "how many meshd")
	flag.IntVar(&o.changes, "changes", 300, "how many changes, one after the other")
	flag.Uint64Var(&o.seed, "seed", 1, "of the choice of the nodes that change something")
	flag.BoolVar(&o.all, "all", false, "a start, a tenth killed and a partition too, and their costs")
	flag.Parse()
	if asked, err := restoreIfAsked(); asked {
		exit(0, err)
	}
	restore := func() error { return nil }
	prepare := func(dir string) (err error) {
		if restore, err = raiseNeighbours(o.nodes); err != nil {
			return err
		}
		return fleet.Build(dir)
	}
	code, err := rig.Main(prepare, func(w rig.World) int { return inside(w, o) })
	exit(code, errors.Join(err, restore()))
}

func exit(code int, err error) {
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
	b := &bench{options: o, ctx: ctx, down: map[*fleet.Node]bool{}}
	if err := b.start(r, w.Dir); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if o.all {
		return b.everything(r)
	}
	return b.converge()
}
