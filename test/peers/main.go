// Command peers measures NetworkDB, the gossip database of Docker Swarm, in
// the network that meshd's own simulator has: links of 0.3 ms + Exp(0.15 ms)
// per direction and a loss that can be set. It prints lines of the same form
// as ../bench, with impl=networkdb.
//
// NetworkDB runs whole and unmodified (memberlist included), in virtual time
// (testing/synctest), over a transport in memory. It has a field for such a
// transport that only its own tests set; see setTransport. So the figures are
// of the algorithm: processor time counts for nothing.
//
//	peers [converge|burst|churn|heal|idle] [key=value…]
//
// Each line is measured by a process of its own that may take -wall; one that
// does not end in time is reported as such.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
)

const link = "0.3ms+exp(0.15ms)"

// line is one measurement.
type line struct {
	name   string
	params string // key=value …, as the line shows them
	run    func(c *cluster, params string)
	nodes  int
	loss   float64
}

func lines() []line {
	var all []line
	add := func(name string, run func(*cluster, string), nodes int, loss float64, format string, args ...any) {
		all = append(all, line{name, fmt.Sprintf(format, args...), run, nodes, loss})
	}
	for _, nodes := range []int{10, 25, 100} {
		for _, loss := range []float64{0, 0.05, 0.25} {
			if nodes < 100 || loss == 0 {
				add("converge", converge, nodes, loss, "nodes=%d loss=%g", nodes, loss)
			}
		}
	}
	for _, b := range [][2]int{{10, 1000}, {25, 1000}, {10, 5000}} {
		add("burst", func(c *cluster, p string) { burst(c, p, b[1]) }, b[0], 0, "nodes=%d entries=%d", b[0], b[1])
	}
	for _, b := range [][2]int{{10, 10}, {25, 10}, {25, 100}} {
		add("churn", func(c *cluster, p string) { churn(c, p, b[1]) }, b[0], 0, "nodes=%d per_s=%d", b[0], b[1])
	}
	for _, s := range []int{10, 300} {
		add("heal", func(c *cluster, p string) { heal(c, p, time.Duration(s)*time.Second, 1000) }, 25, 0,
			"nodes=25 split_s=%d changes=1000", s)
	}
	add("idle", func(c *cluster, p string) { idle(c, p, 1000) }, 25, 0, "nodes=25 endpoints=1000")
	return all
}

func main() {
	one := flag.String("one", "", "measure this line here, in this process")
	wall := flag.Duration("wall", 3*time.Minute, "how long one line may take")
	seed := flag.Uint64("seed", 1, "of the links and of the choice of nodes")
	testing.Init()
	flag.Parse()
	if *one == "" {
		os.Exit(all(flag.Args(), *wall, *seed))
	}
	logrus.SetOutput(io.Discard)
	i := slices.IndexFunc(lines(), func(l line) bool { return l.name+" "+l.params == *one })
	l := lines()[i]
	measure := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { l.run(newCluster(t, l.nodes, l.loss, *seed), l.params) })
	}
	testing.Main(func(string, string) (bool, error) { return true, nil },
		[]testing.InternalTest{{Name: l.name, F: measure}}, nil, nil)
}

// all measures the lines that have all the words asked for.
func all(want []string, wall time.Duration, seed uint64) (code int) {
	for _, l := range lines() {
		whole := l.name + " " + l.params
		if !hasAll(strings.Fields(whole), want) {
			continue
		}
		out, err := child(whole, wall, seed)
		if err != nil {
			fmt.Printf("%s impl=networkdb %s result=none reason=%q wall_s=%.0f link=%s\n", l.name, l.params, err, wall.Seconds(),
				link)
			code = 1
			continue
		}
		fmt.Println(out)
	}
	return code
}

func hasAll(has, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(has, w) })
}

// child measures one line in a process of its own.
func child(whole string, wall time.Duration, seed uint64) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wall)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-one", whole, "-seed", fmt.Sprint(seed))
	text, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	for l := range strings.Lines(string(text)) {
		if strings.Contains(l, "impl=networkdb") {
			return strings.TrimSpace(l), nil
		}
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return "", fmt.Errorf("%w: %s", err, first)
}
