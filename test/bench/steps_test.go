package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// mayGrow is how many times as many steps an operation may take among growth times as
// many members or networks. What walks over all of them takes about growth times as
// many; the depth of a tree, and chance, make some difference.
const mayGrow = 1.6

// perMember is the operations that concern many members at once: their steps are
// counted per member.
var perMember = map[string]bool{"list": true, "tenth_lost": true}

// instrumented is the packages whose statements are counted: the core's, and those that
// do its walks and sorts. The program is one of them, or there would be no counters.
const instrumented = "meshd/test/bench,meshd/gossip,meshd/state,github.com/tidwall/btree,slices,maps,container/heap"

// TestCostsDoNotGrow: G20. What a node does when a member comes, goes, or is there, and
// when a packet comes, does not grow with the members or the networks that there are.
func TestCostsDoNotGrow(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "bench")
	build := exec.Command("go", "build", "-cover", "-covermode=atomic", "-coverpkg="+instrumented, "-o", bin, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(bin, "steps").Output()
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^steps op=(\w+) nodes=(\d+) networks=(\d+) steps=(\d+)$`)
	small := map[string]float64{}
	for _, m := range line.FindAllStringSubmatch(string(out), -1) {
		op, nodes, networks, steps := m[1], number(t, m[2]), number(t, m[3]), number(t, m[4])
		size := max(nodes, networks)
		if networks > 0 {
			op += " with networks"
		}
		if perMember[op] {
			steps /= size
		}
		if size == smallMesh || size == fewNetworks {
			small[op] = steps
			continue
		}
		before, ok := small[op]
		if delete(small, op); !ok || before == 0 || steps > mayGrow*before {
			t.Errorf("%s: %.0f steps, and %.0f at a size of %.0f", op, before, steps, size)
		}
		t.Logf("%s: %.0f and %.0f steps", op, before, steps)
	}
	if len(small) > 0 || line.FindIndex(out) == nil {
		t.Errorf("nothing to compare with: %v in %s", small, out)
	}
}

func number(t *testing.T, s string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
