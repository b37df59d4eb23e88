//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"meshd/test/rig"
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

// measureEach calls f several times.
func measureEach(times int, f func(i int) error) (cost, error) {
	runtime.GC()
	var m meter
	for i := range times {
		m.start()
		if err := f(i); err != nil {
			return cost{}, err
		}
		m.stop()
	}
	return m.cost(), nil
}

// meter measures something that happens several times.
type meter struct {
	walls []time.Duration
	cpus  []time.Duration
	cpu   time.Duration
	wall  time.Time
}

func (m *meter) start() { m.cpu, m.wall = cpuTime(), time.Now() }

func (m *meter) stop() {
	m.walls = append(m.walls, time.Since(m.wall))
	m.cpus = append(m.cpus, cpuTime()-m.cpu)
}

// forget leaves out the first n times.
func (m *meter) forget(n int) { m.walls, m.cpus = m.walls[n:], m.cpus[n:] }

// cost returns the median of the wall times and the mean of the processor
// time, whose clock is coarse.
func (m *meter) cost() cost {
	var cpu time.Duration
	for _, d := range m.cpus {
		cpu += d
	}
	slices.Sort(m.walls)
	return cost{wall: m.walls[len(m.walls)/2], cpu: cpu / time.Duration(len(m.cpus))}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// report gathers the costs of lines that are measured more than once.
type report struct {
	order []string
	costs map[string][]cost
}

// add notes the cost of one operation; notes are further key=value pairs.
func (r *report) add(w what, c cost, notes ...string) {
	line := fmt.Sprintf("lb driver=%s path=%s op=%s services=%d backends=%d", w.driver, w.path, w.op, w.services,
		w.backends)
	line = strings.Join(append([]string{line}, notes...), " ")
	if r.costs == nil {
		r.costs = map[string][]cost{}
	}
	if r.costs[line] == nil {
		r.order = append(r.order, line)
	}
	r.costs[line] = append(r.costs[line], c)
}

// print prints every line with the median of its costs, and forgets them.
func (b *bench) print() {
	for _, line := range b.report.order {
		var walls, cpus []time.Duration
		for _, c := range b.report.costs[line] {
			walls, cpus = append(walls, c.wall), append(cpus, c.cpu)
		}
		slices.Sort(walls)
		slices.Sort(cpus)
		wall, cpu, runs := walls[len(walls)/2], cpus[len(cpus)/2], len(walls)
		if b.instructions {
			fmt.Printf("%s instructions=%d runs=%d\n", line, wall.Nanoseconds(), runs)
		} else {
			fmt.Printf("%s cpu_ms=%s wall_ms=%s runs=%d load1=%s\n", line, ms(cpu), ms(wall), runs, rig.LoadAverage())
		}
	}
	b.report = report{}
}

// waitIdle waits until the machine has nothing to do, for a machine of our own.
func (b *bench) waitIdle() error {
	const quiet, patience = time.Second, 300
	before, err := busyTicks()
	for range patience {
		if err != nil {
			return err
		}
		select {
		case <-time.After(quiet):
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
		var now int
		if now, err = busyTicks(); err == nil && now-before <= 1 { // asking takes a little
			return nil
		}
		before = now
	}
	return errors.New("the machine does not come to rest")
}

// busyTicks is the processor time of user and system so far, in ticks.
func busyTicks() (int, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var user, nice, system int
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d", &user, &nice, &system); err != nil {
		return 0, fmt.Errorf("/proc/stat: %w", err)
	}
	return user + nice + system, nil
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
