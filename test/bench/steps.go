package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime/coverage"
	"strconv"
	"strings"
)

// steps prints how many statements the core executes for each operation of members,
// at two sizes of the mesh and with two numbers of networks. Unlike a time it is the
// same on every machine, however busy, for the same seed. The program must be built
// with -cover -covermode=atomic; steps_test.go does, and compares the sizes.
func steps(o options) {
	for _, nodes := range []int{smallMesh, growth * smallMesh} {
		memberCosts(o, nodes)
	}
	for _, networks := range []int{fewNetworks, growth * fewNetworks} {
		networkCosts(o, networks)
	}
}

// The sizes that steps compares with others that are growth times as large. Up to about
// a thousand members, and a few hundred networks, some chores look at all.
const (
	smallMesh   = 1200
	fewNetworks = 400
	growth      = 4
)

// countSteps returns how many statements of the instrumented packages f executes.
func countSteps(f func()) (int, error) {
	if err := coverage.ClearCounters(); err != nil {
		return 0, fmt.Errorf("build with -cover -covermode=atomic: %w", err)
	}
	f()
	dir, err := os.MkdirTemp("", "steps")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := coverage.WriteCountersDir(dir); err != nil {
		return 0, err
	}
	if err := coverage.WriteMetaDir(dir); err != nil {
		return 0, err
	}
	out, err := exec.Command("go", "tool", "covdata", "textfmt", "-i="+dir, "-o=/dev/stdout").Output()
	if err != nil {
		return 0, fmt.Errorf("go tool covdata: %w", err)
	}
	return sumSteps(out)
}

// sumSteps adds up a coverage profile: lines of "place statements count".
func sumSteps(profile []byte) (sum int, err error) {
	for lines := bufio.NewScanner(bytes.NewReader(profile)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) != 3 || strings.HasPrefix(f[0], "meshd/test/") {
			continue // the mode, and this program
		}
		statements, err1 := strconv.Atoi(f[1])
		count, err2 := strconv.Atoi(f[2])
		if err1 != nil || err2 != nil {
			return 0, fmt.Errorf("a line of a coverage profile: %q", lines.Text())
		}
		sum += statements * count
	}
	return sum, nil
}
