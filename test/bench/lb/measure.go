//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// what a line is about.
type what struct {
	driver, path, op   string
	services, backends int // backends of each service
}

// cost is the time that something took, by the clock and of this process's
// processor time, which includes what the kernel does in its system calls.
type cost struct{ wall, cpu time.Duration }

// measure calls f once.
func measure(f func() error) (cost, error) {
	runtime.GC() // what was before is not part of it
	cpu, wall := cpuTime(), time.Now()
	err := f()
	return cost{wall: time.Since(wall), cpu: cpuTime() - cpu}, err
}

// measureEach calls f several times and returns the median of the wall times
// and the mean of the processor time, whose clock is too coarse for one call.
func measureEach(times int, f func(i int) error) (cost, error) {
	runtime.GC()
	walls := make([]time.Duration, times)
	cpu := cpuTime()
	for i := range walls {
		start := time.Now()
		if err := f(i); err != nil {
			return cost{}, err
		}
		walls[i] = time.Since(start)
	}
	cpu = cpuTime() - cpu
	slices.Sort(walls)
	return cost{wall: walls[times/2], cpu: cpu / time.Duration(times)}, nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// print prints the line of one operation; notes are further key=value pairs.
func (b *bench) print(w what, c cost, notes ...string) {
	line := fmt.Sprintf("lb driver=%s path=%s op=%s services=%d backends=%d", w.driver, w.path, w.op, w.services, w.backends)
	if b.instructions {
		line += fmt.Sprintf(" instructions=%d", c.wall.Nanoseconds())
	} else {
		line += fmt.Sprintf(" cpu_ms=%s wall_ms=%s", ms(c.cpu), ms(c.wall))
		notes = append(notes, load())
	}
	fmt.Println(strings.Join(append([]string{line}, notes...), " "))
}

// ms formats with three digits that count.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

// load is the machine's load average, so that a figure from a busy machine is
// known as such.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "load1=unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return "load1=" + first
}
