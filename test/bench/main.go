// Command bench measures the protocol core in the simulator and prints
// "name key=value …" lines. Every figure is in virtual time, so that it does
// not depend on the machine or its load, and is the same for the same seed.
//
//	bench converge|burst|churn|heal|idle|join|cold|wide|members|verify|scale [-quick] [-seed N] [key=value…]
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// bench is one subcommand.
type bench struct {
	name string
	doc  string
	run  func(o options)
}

type options struct {
	seed  uint64
	quick bool
	only  []string // "nodes=25": only lines that have it
	steps bool     // members counts statements
}

// wants reports whether a line is asked for.
func (o options) wants(format string, args ...any) bool {
	line := strings.Fields(fmt.Sprintf(format, args...))
	for _, want := range o.only {
		if !slices.Contains(line, want) {
			return false
		}
	}
	return true
}

const link = "0.3ms+exp(0.15ms)"

func main() {
	benches := []bench{
		{"converge", "one change until visible on all", converge},
		{"burst", "many changes at once until all tables are equal", burst},
		{"churn", "changes at a constant rate: time until visible", churn},
		{"heal", "a partition with changes on both sides, until equal", heal},
		{"idle", "bytes per second when nothing changes", idle},
		{"join", "a node joins a large mesh", join},
		{"cold", "all nodes start at once with their endpoints", cold},
		{"wide", "many networks: at rest, and a node that joins", wide},
		{"members", "what others cost one node as they come, go and are there", members},
		{"steps", "the statements that members executes, at two sizes; for steps_test.go", steps},
		{"verify", "a reported death: packets to the suspect, who hides it", verify},
		{"scale", "up to 10,000 nodes, with fitted exponents", scale},
	}
	if len(os.Args) < 2 {
		usage(benches)
	}
	i := slices.IndexFunc(benches, func(b bench) bool { return b.name == os.Args[1] })
	if i < 0 {
		usage(benches)
	}
	fs := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	var o options
	fs.Uint64Var(&o.seed, "seed", 1, "of the run")
	fs.BoolVar(&o.quick, "quick", false, "fewer and smaller runs")
	_ = fs.Parse(os.Args[2:])
	o.only = fs.Args()
	o.steps = benches[i].name == "steps"
	benches[i].run(o)
}

func usage(benches []bench) {
	fmt.Fprintln(os.Stderr, "usage: bench NAME [-quick] [-seed N] [key=value…]")
	for _, b := range benches {
		fmt.Fprintf(os.Stderr, "  %-10s %s\n", b.name, b.doc)
	}
	os.Exit(2)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

// quantile returns the q-th quantile of sorted durations.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	return ds[min(int(q*float64(len(ds))), len(ds)-1)]
}
