//go:build linux

// Command lb measures how fast the load balancers of the kernel are programmed
// and how fast they are, in network namespaces of its own, and prints
// "lb key=value …" lines.
//
//	lb [-quick] nft|request|ipvs…
//
// Part nft programs nftables with our driver and with kube-proxy's layout. Part
// request connects to a server directly and through a VIP. Both run on the
// kernel at hand. Part ipvs programs IPVS with our driver, with moby/ipvs one
// call at a time, and with a minimal writer that checks nothing; it is meant
// for an emulated machine whose clock counts instructions (vm run -icount),
// which -instructions says.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"meshd/test/rig"
)

// bench is one run.
type bench struct {
	ctx          context.Context
	quick        bool
	heard        bool // changes of rules are listened to, as meshd does
	instructions bool // the clock counts instructions, one per nanosecond
	report       report
}

// part is what can be asked for.
type part struct {
	name string
	run  func(*bench) error
}

var parts = []part{
	{"nft", (*bench).nftables},
	{"request", (*bench).requests},
	{"ipvs", (*bench).ipvs},
}

func main() {
	b := &bench{}
	flag.BoolVar(&b.quick, "quick", false, "smaller tables and shorter runs")
	flag.BoolVar(&b.heard, "heard", true, "listen to changes of the nftables rules, as meshd does")
	flag.BoolVar(&b.instructions, "instructions", false, "the machine's clock counts instructions: print them")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: lb [-quick] [-instructions] nft|request|ipvs…")
		flag.PrintDefaults()
	}
	flag.Parse()
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			fmt.Fprintf(os.Stderr, "lb: part %q is unknown; there are nft, request and ipvs\n", name)
			os.Exit(2)
		}
	}
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	code, err := rig.Main(nil, func(rig.World) int { return b.inside() })
	if err != nil {
		fmt.Fprintln(os.Stderr, "lb:", err)
		code = 1
	}
	os.Exit(code)
}

func (b *bench) inside() int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	b.ctx = ctx
	for _, p := range parts {
		if !slices.Contains(flag.Args(), p.name) {
			continue
		}
		if err := p.run(b); err != nil {
			fmt.Fprintf(os.Stderr, "lb: %s: %s\n", p.name, strings.TrimSpace(err.Error()))
			return 1
		}
	}
	return 0
}
