//go:build linux

// Command demo shows meshd at work on one machine: three hosts, emulated as
// network namespaces, a real meshd in each, real HTTP servers as tasks. It
// prints what it asked, what came back and how long that took, and ends with
// "demo: PASS" or "demo: FAIL <step>".
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

func main() {
	fleet.ServeIfAsked()
	keep := flag.Bool("keep", false, "leave the hosts up at the end, until Ctrl-C, and print how to look around")
	lb := flag.String("lb", "auto", "the load balancer `driver` of every meshd: auto, ipvs, nft or none")
	kind := flag.String("host-kind", "",
		"make the hosts of a `kind`, as docker, ufw or strict, and mend them with what meshctl doctor says")
	kinds := flag.Bool("host-kinds", false, "print the kinds of hosts that can be made here, and do nothing else")
	flag.Parse()
	if *kinds {
		printKinds()
		return
	}
	code, err := rig.Main(build, func(w rig.World) int { return inside(w, *lb, *kind, *keep) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		fmt.Println("demo: FAIL start")
		code = 1
	}
	os.Exit(code)
}

// build compiles the programs, or finds them ready, outside, where modules can
// be fetched.
func build(dir string) error {
	if os.Getenv(fleet.BinEnv) == "" {
		fmt.Println("building meshd and meshctl …")
	}
	return fleet.Build(dir)
}

func inside(w rig.World, lb, kind string, keep bool) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	d, err := newDemo(ctx, w, lb, kind)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		fmt.Println("demo: FAIL start")
		return 1
	}
	defer d.fleet.Rig.Close()
	failed := d.play()
	if keep && ctx.Err() == nil {
		d.printLookAround(w)
		<-ctx.Done()
	}
	if failed != "" {
		fmt.Println("demo: FAIL", failed)
		return 1
	}
	fmt.Println("demo: PASS")
	return 0
}

func newDemo(ctx context.Context, w rig.World, lb, kind string) (*demo, error) {
	r, err := rig.New(filepath.Join(w.Dir, "logs"))
	if err != nil {
		return nil, err
	}
	f, err := fleet.New(r, w.Dir, w.Dir)
	if err != nil {
		r.Close()
		return nil, err
	}
	f.LB = lb
	s := &stage{ctx: ctx, out: os.Stdout, fleet: f, kind: kind, boxes: map[string]*fleet.Task{}}
	return &demo{stage: s, kernel: ipvsCheck{stage: s}}, nil
}
