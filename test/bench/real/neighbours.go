//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The kernel has one table of neighbours for all network namespaces, with room for
// 1,024 by default. A hundred hosts that all know each other are 9,900. What is over
// it finds no room, and packets are lost as on no real host.
//
// Only the machine's own namespace can set the bounds, so this runs outside, before
// the namespaces are made, and undoes it afterwards. A process of its own does that:
// it waits for the end of this one, however that comes about.

const (
	thresholds = "/proc/sys/net/ipv4/neigh/default/gc_thresh"
	restoreEnv = "MESHD_BENCH_RESTORE" // what the process that restores writes: three numbers
)

// raiseNeighbours makes room for the neighbours of so many hosts, and returns what ends
// the process that puts the bounds back and waits until it has.
func raiseNeighbours(hosts int) (restore func() error, err error) {
	need := 4 * hosts * hosts
	var old, want []string
	enough := true
	for i := range 3 {
		text, err := os.ReadFile(thresholds + strconv.Itoa(i+1))
		if err != nil {
			return nil, fmt.Errorf("read the bounds of the neighbour table: %w", err)
		}
		have, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, fmt.Errorf("%s%d holds %q, not a number", thresholds, i+1, text)
		}
		old, want = append(old, strconv.Itoa(have)), append(want, strconv.Itoa(max(have, need*(i+1)/3)))
		enough = enough && (i == 0 || have >= need/4)
	}
	if enough {
		return func() error { return nil }, nil
	}
	restore, err = keeper(old)
	if err != nil {
		return nil, err
	}
	if err := writeThresholds(want); err != nil {
		const advice = "run as root, or first: sysctl -w net.ipv4.neigh.default.gc_thresh3"
		return nil, errors.Join(fmt.Errorf("%w; %s=%d", err, advice, need), restore())
	}
	return restore, nil
}

// keeper starts the process that writes numbers when this one has ended, or when the
// function that it returns is called.
func keeper(numbers []string) (finish func() error, err error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), restoreEnv+"="+strings.Join(numbers, " "))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is not for it
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start what puts the neighbour table's bounds back: %w", err)
	}
	return func() error {
		if err := pipe.Close(); err != nil {
			return err
		}
		return cmd.Wait()
	}, nil
}

// restoreIfAsked is all that the process does that keeper starts.
func restoreIfAsked() (asked bool, err error) {
	numbers := strings.Fields(os.Getenv(restoreEnv))
	if len(numbers) == 0 {
		return false, nil
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the pipe's other end is gone
		return true, err
	}
	return true, writeThresholds(numbers)
}

// writeThresholds sets the bounds, from the largest to the smallest.
func writeThresholds(numbers []string) error {
	for i, number := range slices.Backward(numbers) {
		if err := os.WriteFile(thresholds+strconv.Itoa(i+1), []byte(number), 0); err != nil {
			return fmt.Errorf("set the bounds of the neighbour table: %w", err)
		}
	}
	return nil
}
