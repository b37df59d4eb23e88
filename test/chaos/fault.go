//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"meshd/test/rig"
)

// fault is one thing that goes wrong in a round.
type fault struct {
	kind  string
	hosts []int // that it concerns
	loss  int   // per cent
	after time.Duration
}

func (f fault) String() string {
	var names []string
	for _, h := range f.hosts {
		names = append(names, hostName(h))
	}
	s := f.kind + " " + strings.Join(names, ",")
	if f.kind == "loss" {
		s = fmt.Sprintf("loss %d%% everywhere", f.loss)
	}
	return s
}

func hostName(i int) string { return fmt.Sprintf("host%d", i+1) }

// kinds are the faults that a round draws from. Those of the network have a list
// of their own, because two of them at once hide each other.
var (
	networkKinds = []string{"isolate", "split", "one-way-out", "one-way-in", "one-way-pair", "loss", "cut-udp", "cut-tcp"}
	processKinds = []string{"pause", "kill", "kill-disk", "kill-all"}
)

// round draws what goes wrong at once, and for how long.
func round(rng *rand.Rand, hosts int, only []string) ([]fault, time.Duration) {
	lasts := time.Duration(1500+rng.IntN(6500)) * time.Millisecond
	if rng.IntN(6) == 0 {
		lasts += 10 * time.Second // long enough that everything must be noticed
	}
	var fs []fault
	switch n := rng.IntN(10); {
	case len(only) > 0:
		fs = append(fs, draw(rng, only, hosts))
	case n < 4:
		fs = append(fs, draw(rng, networkKinds, hosts))
	case n < 8:
		fs = append(fs, draw(rng, processKinds, hosts))
	default:
		fs = append(fs, draw(rng, networkKinds, hosts), draw(rng, processKinds, hosts))
	}
	for i := range fs {
		fs[i].after = time.Duration(rng.IntN(500)) * time.Millisecond
	}
	return fs, lasts
}

func draw(rng *rand.Rand, kinds []string, hosts int) fault {
	f := fault{kind: kinds[rng.IntN(len(kinds))], loss: 10 + rng.IntN(25)}
	order := rng.Perm(hosts)
	n := 1
	switch f.kind {
	case "split":
		n = 1 + rng.IntN(hosts/2)
	case "one-way-pair":
		n = 2
	case "pause", "kill":
		n = 1 + rng.IntN(2)
	case "kill-all", "loss":
		n = hosts
	}
	f.hosts = order[:n]
	slices.Sort(f.hosts)
	return f
}

// inject makes the fault happen.
func (c *cluster) inject(f fault) error {
	switch f.kind {
	case "pause":
		return c.each(f.hosts, c.pause)
	case "kill", "kill-all":
		return c.each(f.hosts, func(h int) error { return c.kill(h, false) })
	case "kill-disk":
		return c.each(f.hosts, func(h int) error { return c.kill(h, true) })
	}
	return c.damage(f)
}

func (c *cluster) each(hosts []int, do func(int) error) error {
	var errs []error
	for _, h := range hosts {
		errs = append(errs, do(h))
	}
	return errors.Join(errs...)
}

func (c *cluster) pause(host int) error {
	m := c.members[host]
	if m.outage != nil {
		return nil
	}
	m.outage = c.line.down(host, "daemon stopped by SIGSTOP")
	m.setUsable(false)
	return m.Proc.Pause()
}

// kill ends a daemon with SIGKILL; with disk, it forgets everything too.
func (c *cluster) kill(host int, disk bool) error {
	m := c.members[host]
	if m.outage != nil {
		return nil
	}
	m.outage, m.killed = c.line.down(host, "daemon killed"), true
	m.setUsable(false)
	m.Proc.Kill()
	if !disk {
		return nil
	}
	m.amnesia = true
	c.book.forget(host)
	return os.RemoveAll(m.DataDir)
}

// damage makes the network worse.
func (c *cluster) damage(f fault) error {
	in := func(h int) bool { return slices.Contains(f.hosts, h) }
	var errs []error
	for a := range c.members {
		for b := range c.members {
			if a == b {
				continue
			}
			wrong, hit := f.onLink(a, b, in)
			if !hit {
				continue
			}
			noticed := (f.kind == "isolate" || f.kind == "split") && !f.preserves(in(a), len(c.members))
			c.broken = append(c.broken, c.line.bad(badLink{span{why: f.kind}, a, b, wrong.Proto != rig.UDP, noticed}))
			errs = append(errs, c.fleet.Rig.SetFaults(c.members[a].Host, c.members[b].Host, wrong))
		}
	}
	return errors.Join(errs...)
}

// preserves reports whether so many hosts vanish for those on one side of a
// cut that they must keep serving what they knew (S12).
func (f fault) preserves(inside bool, hosts int) bool {
	vanished := len(f.hosts)
	if inside {
		vanished = hosts - vanished
	}
	return hosts-1 >= 5 && float64(vanished) > 0.6*float64(hosts-1)
}

// onLink returns what the fault does to packets from a to b.
func (f fault) onLink(a, b int, in func(int) bool) (rig.Fault, bool) {
	cut := rig.Fault{Loss: 100}
	across := in(a) != in(b)
	switch f.kind {
	case "isolate", "split":
		return cut, across
	case "one-way-out":
		return cut, in(a)
	case "one-way-in":
		return cut, in(b)
	case "one-way-pair":
		return cut, a == f.hosts[0] && b == f.hosts[1]
	case "loss":
		return rig.Fault{Loss: f.loss}, true
	case "cut-udp":
		return rig.Fault{Proto: rig.UDP, Loss: 100}, across
	case "cut-tcp":
		return rig.Fault{Proto: rig.TCP, Loss: 100}, across
	}
	return rig.Fault{}, false
}

// heal undoes every fault: links first, then daemons.
func (c *cluster) heal(ctx context.Context) error {
	err := c.fleet.Rig.HealAll()
	for _, l := range c.broken {
		c.line.end(&l.span)
	}
	c.broken = nil
	for h, m := range c.members {
		if m.outage == nil {
			continue
		}
		if m.killed {
			err = errors.Join(err, m.Start(ctx))
		} else {
			err = errors.Join(err, m.Proc.Resume())
		}
		if m.amnesia {
			err = errors.Join(err, c.book.register(ctx, c.members[h]))
		}
		c.line.end(&m.outage.span)
		m.setUsable(true)
		m.outage, m.killed, m.amnesia = nil, false, false
	}
	return err
}
