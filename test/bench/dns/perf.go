//go:build linux

package main

// This file owns the second opinion, by dnsperf.

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"meshd/test/rig"
)

// perf asks with dnsperf too, a client that others know: a second per server.
func (b *bench) perf(c benchCase, cs []*contender) error {
	if _, err := exec.LookPath("dnsperf"); err != nil {
		fmt.Fprintln(os.Stderr, "dns: without dnsperf:", err)
		b.dnsperf = false
		return nil
	}
	f, err := os.CreateTemp("", "dnsperf-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	w := bufio.NewWriter(f)
	for _, n := range c.names(b.world) {
		fmt.Fprintln(w, strings.TrimSuffix(n, "."), "A")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	for _, k := range cs {
		if k.change > 0 {
			continue
		}
		addr := b.addr(c, k.server)
		args := []string{
			"-s", addr.Addr().String(), "-p", fmt.Sprint(addr.Port()), "-d", f.Name(), "-c8", "-T1", "-q100",
			"-l1",
		}
		if c.edns {
			args = append(args, "-e")
		}
		out, err := onProcessor(exec.CommandContext(b.ctx, "dnsperf", args...), clientCPU)
		if err != nil {
			return fmt.Errorf("dnsperf: %w: %s", err, out)
		}
		for line := range bytes.Lines(out) {
			if v, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("Queries per second:")); ok {
				fmt.Printf("dnsperf server=%s case=%s qps=%s load1=%s\n", k.name, c.name, bytes.TrimSpace(v), rig.LoadAverage())
			}
		}
	}
	return nil
}
