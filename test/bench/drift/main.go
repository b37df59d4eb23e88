//go:build linux

// Command drift measures how soon a real meshd puts back what somebody else
// removed from the kernel, and what it spends while somebody changes the
// kernel's rules without end. It prints "drift …" and "storm …" lines.
//
// It runs as root, or as an ordinary user where user namespaces are allowed,
// in namespaces of its own, and leaves nothing behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"meshd/test/fleet"
	"meshd/test/rig"
)

type options struct {
	tries int
	storm time.Duration
}

func main() {
	fleet.ServeIfAsked()
	var o options
	flag.IntVar(&o.tries, "tries", 20, "how often each thing is removed")
	flag.DurationVar(&o.storm, "storm", 10*time.Second, "how long each storm is; 0: none")
	flag.Parse()
	code, err := rig.Main(fleet.Build, func(w rig.World) int { return inside(w, o) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "drift:", err)
		code = 1
	}
	os.Exit(code)
}

func inside(w rig.World, o options) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := measure(ctx, w, o); err != nil {
		fmt.Fprintln(os.Stderr, "drift:", err)
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
	if err := b.removals(); err != nil {
		return err
	}
	if o.storm == 0 {
		return nil
	}
	return b.storms()
}
