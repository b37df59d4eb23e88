//go:build linux

// Command dns measures DNS servers beside a bare UDP echo, in one run: every
// server on one processor, the client on another, in short bursts that take
// turns, so that what else the machine does falls on all of them. It prints
// "dns server=… case=… qps=… ratio=… …" lines:
//
//	qps       answers per second, median of the bursts
//	ratio     qps as a share of the echo's in the same round, median of the rounds
//	cpu_us    processor time of the server per answer, of all bursts together
//	cpu_ratio the echo's cpu_us as a share of it
//	p50_us    time from the system call that sends to the one that receives
//	allocs    heap allocations per answer, where the server reports them (Go)
//
// ratio and qps need a quiet machine; cpu_us much less so. With -urgent the
// bursts have real-time priority: for a machine that is not quiet.
//
// Everything runs in a network namespace of its own, on its loopback device. It
// runs as root, or as an ordinary user where user namespaces are allowed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"meshd/test/rig"
)

type options struct {
	// How long and how often.
	rounds int           // bursts per server and case
	burst  time.Duration // length of a burst
	gap    time.Duration // pause after a burst; 0: none, or three bursts with urgent
	urgent bool          // bursts have real-time priority

	// What.
	names   int    // names that exist
	cases   string // by commas; "": all
	only    string // servers, by commas; "": all
	coredns string // the CoreDNS binary
	dnsperf bool   // also run dnsperf
	seed    uint64 // of the order of the names
}

func (o *options) wants(list, item string) bool {
	if list == "" {
		return true
	}
	for s := range strings.SplitSeq(list, ",") {
		if s == item {
			return true
		}
	}
	return false
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "serve" {
		if err := serve(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "dns: serve:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 12, "bursts per server and case")
	flag.DurationVar(&o.burst, "burst", 250*time.Millisecond, "length of a burst")
	flag.DurationVar(&o.gap, "gap", 0, "pause after a burst; 0: none, or three bursts with -urgent")
	flag.IntVar(&o.names, "names", 10_000, "names that exist")
	flag.BoolVar(&o.urgent, "urgent", false, "run the bursts with real-time priority")
	flag.StringVar(&o.cases, "cases", "", "only these, by commas: hit,hit10,miss,change,networks,rate5k")
	flag.StringVar(&o.only, "servers", "", "only these, by commas: echo,meshd,miekg,unbound,dnsmasq,coredns")
	flag.StringVar(&o.coredns, "coredns", "coredns", "the CoreDNS binary")
	flag.BoolVar(&o.dnsperf, "dnsperf", false, "also run dnsperf, if it is installed")
	flag.Uint64Var(&o.seed, "seed", 1, "of the order of the names")
	flag.Parse()
	if o.gap == 0 && o.urgent {
		o.gap = 3 * o.burst
	}
	code, err := rig.Main(nil, func(w rig.World) int { return inside(w, o) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "dns:", err)
		code = 1
	}
	os.Exit(code)
}

func inside(w rig.World, o options) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := measure(ctx, w.Dir, o); err != nil {
		fmt.Fprintln(os.Stderr, "dns:", err)
		return 1
	}
	return 0
}

// measure starts the servers and runs the cases one after the other.
func measure(ctx context.Context, dir string, o options) error {
	b := &bench{options: o, ctx: ctx, world: newWorld(o.names)}
	defer b.stop()
	if err := b.start(dir); err != nil {
		return err
	}
	for _, c := range cases {
		if !b.wants(o.cases, c.name) {
			continue
		}
		if err := b.run(c); err != nil {
			return fmt.Errorf("case %s: %w", c.name, err)
		}
	}
	return ctx.Err()
}
