//go:build !race

package sim

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

var (
	benchDetect = flag.Bool("detect", false, "run the whole of the crash detection benchmark (make bench-detect)")
	only        = flag.String("only", "", "only the case of that name")
)

// detectCase is one line of the benchmark.
type detectCase struct {
	name    string
	nodes   int
	profile string
	link    Link
	crashes int
	watch   time.Duration // in the benchmark
	brief   time.Duration // in the test; 0: not in the test
	starved int           // so many machines stop over and over
	stall   time.Duration // for up to that long
}

func lossy(p float64) Link { l := LAN(); l.Loss = p; return l }

func far(p float64) Link {
	return Link{Base: 40 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: p}
}

var detectCases = []detectCase{
	{"lan25", 25, "lan", LAN(), 20, time.Hour, time.Minute, 0, 0},
	{"lan25-5", 25, "lan", lossy(0.05), 20, time.Hour, 3 * time.Minute, 0, 0},
	{"lan25-25", 25, "lan", lossy(0.25), 10, 20 * time.Minute, 2 * time.Minute, 0, 0},
	{"lan25-starved", 25, "lan", LAN(), 0, 20 * time.Minute, 2 * time.Minute, 5, 3 * time.Second},
	{"lan25-starved-5", 25, "lan", lossy(0.05), 0, 20 * time.Minute, 0, 5, 3 * time.Second},
	{"lan100", 100, "lan", LAN(), 20, 5 * time.Minute, 20 * time.Second, 0, 0},
	{"lan100-5", 100, "lan", lossy(0.05), 20, 10 * time.Minute, 0, 0, 0},
	{"lan100-25", 100, "lan", lossy(0.25), 5, 3 * time.Minute, 0, 0, 0},
	{"lan100-starved", 100, "lan", LAN(), 0, 3 * time.Minute, 0, 20, 3 * time.Second},
	{"wan25", 25, "wan", far(0), 10, 20 * time.Minute, 0, 0, 0},
	{"wan25-5", 25, "wan", far(0.05), 10, 20 * time.Minute, 0, 0, 0},
	{"local25", 25, "local", LAN(), 10, 20 * time.Minute, 0, 0, 0},
	{"local25-5", 25, "local", lossy(0.05), 10, 20 * time.Minute, 0, 0, 0},
}

// TestBenchDetect measures crash detection and false alarms; the bounds are
// those of the lan profile.
func TestBenchDetect(t *testing.T) {
	for _, x := range detectCases {
		watch := x.watch
		crashes := x.crashes
		if !*benchDetect {
			watch, crashes = x.brief, min(x.crashes, 4)
		}
		if watch == 0 || *only != "" && *only != x.name {
			continue
		}
		d := x.measure(t, watch, crashes)
		line := fmt.Sprintf("detect nodes=%d profile=%s loss=%g starved=%d %v", x.nodes, x.profile, x.link.Loss*100,
			x.starved, d)
		if *benchDetect {
			fmt.Println(line)
		} else {
			t.Log(line)
		}
		x.judge(t, d)
	}
}

func (x detectCase) measure(t *testing.T, watch time.Duration, crashes int) *Detection {
	d := &Detection{}
	inMesh(t, MeshOptions{Seed: 7, Nodes: x.nodes, Link: x.link, Profile: x.profile}, func(t *testing.T, m *Mesh) {
		populate(t, m)
		m.Until(m.Whole, 100*time.Millisecond, 30*time.Second)
		m.Run(10 * time.Second)
		d.Watch(m, watch, x.starved, max(x.stall, 1))
		if err := d.Crashes(m, crashes); err != nil {
			t.Fatal(err)
		}
	})
	return d
}

// judge applies the bounds that are promised.
func (x detectCase) judge(t *testing.T, d *Detection) {
	t.Helper()
	if x.profile != "lan" {
		return
	}
	// The bounds are the benchmark's. memberlist's choices follow no seed, so a
	// plain test run only looks for what is far from them.
	slack := time.Duration(1)
	if !*benchDetect {
		slack = 2
	}
	if p99 := d.Quantile(0.99); x.link.Loss <= 0.05 && p99 > slack*3*time.Second {
		t.Errorf("%s: a crash is noticed after %v (p99)", x.name, p99)
	}
	if d.Missed > 0 {
		t.Errorf("%s: %d crashes were not noticed", x.name, d.Missed)
	}
	if x.link.Loss <= 0.05 && x.starved == 0 && len(d.Hidden) > 0 {
		t.Errorf("%s: hidden though alive: %v", x.name, worst(d.Hidden))
	}
	if d.Longest() > slack*time.Second {
		t.Errorf("%s: hidden for too long: %v", x.name, worst(d.Hidden))
	}
}

func worst(hs []Hiding) []Hiding {
	hs = slices.SortedFunc(slices.Values(hs), func(a, b Hiding) int { return int(b.For - a.For) })
	return hs[:min(5, len(hs))]
}
