//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"

	"meshd/test/rig"
)

// usage is what each daemon that runs used until now, by process.
type usage map[int]spent

// spent is what one daemon used.
type spent struct {
	cpu      float64 // processor time in seconds
	packets  float64 // datagrams and streams of the protocol's own, sent
	bytes    float64 // sent, memberlist's own included
	resident float64 // bytes in memory
}

// usage asks every daemon that runs.
func (b *bench) usage() (usage, error) {
	u := usage{}
	for _, n := range b.nodes {
		if b.down[n] {
			continue
		}
		var text strings.Builder
		if err := n.API.Metrics(b.ctx, &text); err != nil {
			return u, fmt.Errorf("%s: %w", n.Host.Name, err)
		}
		u[n.Proc.PID] = spent{
			cpu: processorTime(n.Proc.PID), resident: resident(n.Proc.PID),
			packets: sample(text.String(), "meshd_gossip_datagrams_out_total") +
				sample(text.String(), "meshd_gossip_streams_out_total"),
			bytes: sample(text.String(), "meshd_transport_out_bytes_total"),
		}
	}
	return u, nil
}

// processorTime returns the processor time that a process has used, in seconds; 0 if it
// has ended.
func processorTime(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	const user, system, perSecond = 11, 12, 100 // proc(5): fields after the name, and USER_HZ
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) <= system {
		return 0
	}
	var a, b float64
	_, _ = fmt.Sscan(fields[user]+" "+fields[system], &a, &b)
	return (a + b) / perSecond
}

// resident returns how many bytes of a process are in memory; 0 if it has ended.
func resident(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kilobytes float64
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, _ = fmt.Sscan(rest, &kilobytes)
		}
	}
	return kilobytes * 1024
}

// since is the key=value text of what a daemon used since before, on average over those
// that ran all the time or began meanwhile.
func (u usage) since(before usage) string {
	var sum spent
	for pid, now := range u {
		was := before[pid]
		sum.cpu, sum.packets = sum.cpu+now.cpu-was.cpu, sum.packets+now.packets-was.packets
		sum.bytes, sum.resident = sum.bytes+now.bytes-was.bytes, sum.resident+now.resident
	}
	n := float64(max(len(u), 1))
	return fmt.Sprintf("cpu_ms=%.0f packets=%.0f kbytes=%.0f rss_mb=%.1f load1=%s", sum.cpu/n*1e3, sum.packets/n,
		sum.bytes/n/1e3, sum.resident/n/1e6, rig.LoadAverage())
}
