//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netns"

	"meshd/test/rig"
)

// clockTick is that of /proc/PID/stat, which has been 100 a second on every
// architecture for Go programs' purposes.
const clockTick = time.Second / 100

// storms measures what the daemon spends while somebody writes rules without
// end, and how soon after the end everything is as it should be.
func (b *bench) storms() error {
	other := &nftables.Table{Name: "others", Family: nftables.TableFamilyIPv4}
	harmless := func(c *nftables.Conn) {
		c.AddTable(other)
		c.DelTable(other)
		c.AddTable(other)
	}
	for _, s := range []struct {
		what  string
		in    *rig.Namespace
		every time.Duration
		write func(*nftables.Conn)
	}{
		{"rules-host", b.node.Host.Namespace, time.Millisecond, harmless},
		{"rules-sandbox", b.client.Namespace, time.Millisecond, harmless},
		{"flush-host", b.node.Host.Namespace, 20 * time.Millisecond, func(c *nftables.Conn) { c.FlushRuleset() }},
	} {
		if err := b.oneStorm(s.what, s.in, s.every, s.write); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

func (b *bench) oneStorm(what string, in *rig.Namespace, every time.Duration, write func(*nftables.Conn)) error {
	if !b.pause(2 * time.Second) {
		return b.ctx.Err()
	}
	idle, err := b.spent(b.storm)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(b.ctx)
	var written atomic.Int64
	ended := make(chan error, 1)
	go func() { ended <- blow(ctx, in, every, write, &written) }()
	begin, before := time.Now(), b.figure("meshd_lb_verifies_prompted_total")
	share, err := b.spent(b.storm)
	prompted, took := b.figure("meshd_lb_verifies_prompted_total")-before, time.Since(begin)
	stop()
	if stormErr := <-ended; err == nil {
		err = stormErr
	}
	if err != nil {
		return err
	}
	after := removal{what: what, in: in, command: "true", back: func(ctx context.Context) error {
		if err := b.serves(ctx, b.web); err != nil {
			return err
		}
		return b.serves(ctx, b.client)
	}}
	whole, err := b.try(&after)
	if err != nil {
		return err
	}
	fmt.Printf("storm what=%s per_s=%.0f core_share=%.3f idle_share=%.3f comparisons_per_s=%.1f whole_after_ms=%s "+
		"load1=%s\n", what,
		float64(written.Load())/took.Seconds(), share-idle, idle, float64(prompted)/took.Seconds(),
		ms([]time.Duration{whole}, 1), rig.LoadAverage())
	return nil
}

// blow writes as often as that, as near as it comes, until ctx ends.
func blow(ctx context.Context, in *rig.Namespace, every time.Duration, write func(*nftables.Conn),
	written *atomic.Int64,
) error {
	ns, err := netns.GetFromPath(in.Path())
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		write(c)
		if err := c.Flush(); err != nil {
			return err
		}
		written.Add(1)
	}
}

// spent returns the share of one processor that the daemon uses for a while.
func (b *bench) spent(length time.Duration) (float64, error) {
	begin := time.Now()
	before, err := processorTime(b.node.Proc.PID)
	if err != nil {
		return 0, err
	}
	b.pause(length)
	after, err := processorTime(b.node.Proc.PID)
	return float64(after-before) / float64(time.Since(begin)), err
}

// processorTime returns what a process has used, in user mode and in the kernel.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields, sum := strings.Fields(rest), 0
	for _, field := range fields[11:13] { // utime and stime
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		sum += ticks
	}
	return time.Duration(sum) * clockTick, nil
}

// figure returns the sum of a metric over the host and its sandboxes.
func (b *bench) figure(name string) (sum float64) {
	var text strings.Builder
	if b.node.API.Metrics(b.ctx, &text) != nil {
		return 0
	}
	for line := range strings.Lines(text.String()) {
		if _, value, ok := strings.Cut(line, "} "); ok && strings.HasPrefix(line, name+"{") {
			v, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			sum += v
		}
	}
	return sum
}
