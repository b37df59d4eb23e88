//go:build linux

package hostile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// The bounds of a daemon at rest, and how long it may take to get there.
const (
	// moreMemory is bytes beyond what it has before the first case. The runtime gives
	// memory back slowly where the machine is busy: 143 MiB were seen after 70,400
	// backends, 21 s after the last of them was gone.
	moreMemory = 192 << 20
	mostBusy   = 60 * time.Millisecond  // of processor in a second
	window     = 500 * time.Millisecond // in which that is measured
	moreFiles  = 24
	toRest     = 20 * time.Second // 4 s alone, what needs longest
)

// alive: no daemon has ended.
func (m *mesh) alive() error {
	for _, n := range m.nodes {
		select {
		case <-n.Proc.Done():
			return fmt.Errorf("meshd on %s ended: %w", n.Host.Name, n.Proc.Err())
		default:
		}
	}
	return nil
}

// members: the hosts know each other, alive.
func (m *mesh) members() error {
	for _, n := range m.nodes {
		all, err := n.API.Nodes(m.ctx)
		if err != nil {
			return err
		}
		found := 0
		for _, x := range all {
			if strings.HasPrefix(x.Name, "host") && x.State == "alive" {
				found++
			}
		}
		if found != hosts {
			return fmt.Errorf("%s sees %d of %d hosts alive: %+v", n.Host.Name, found, hosts, all)
		}
	}
	return nil
}

// reachable: each host reaches each other one, and its own tasks, by their own
// addresses.
func (m *mesh) reachable() error {
	for _, n := range m.nodes {
		to := []string{
			netip.AddrPortFrom(m.evil.Addr, reachPort).String(),
			netip.AddrPortFrom(m.evil.Addr6, reachPort).String(),
		}
		for i, o := range m.nodes {
			if o == n {
				to = append(to, netip.AddrPortFrom(m.tasks[i].Addr, fleet.TaskPort).String())
			} else {
				to = append(to, netip.AddrPortFrom(o.Host.Addr, 7946).String())
			}
		}
		for _, addr := range to {
			ctx, cancel := context.WithTimeout(m.ctx, time.Second)
			c, err := n.Host.Dial(ctx, "tcp", addr)
			cancel()
			if err != nil {
				return fmt.Errorf("%s does not reach %s: %w", n.Host.Name, addr, err)
			}
			_ = c.Close()
		}
	}
	return nil
}

// serves: the service answers by its name and by its address on each host.
func (m *mesh) serves() error {
	for i, t := range m.tasks {
		a, err := t.Resolve(m.ctx, "web", dns.TypeA)
		if err != nil {
			return err
		}
		if a.String() != m.vip.String() {
			return fmt.Errorf("on %s web is %s, not %s", m.nodes[i].Host.Name, a, m.vip)
		}
		for _, from := range []*rig.Namespace{t.Namespace, m.nodes[i].Host.Namespace} {
			for range 2 {
				id, err := fleet.Get(m.ctx, from, m.vip)
				if err != nil {
					return err
				}
				if !strings.HasPrefix(id, "web-host") {
					return fmt.Errorf("%s answers for web", id)
				}
			}
		}
	}
	return nil
}

// equal: the tables are the same on all hosts that have them. It asks the hosts
// alone, while meshctl diff would wait for all that seem to be members.
func (m *mesh) equal() error {
	first := map[string]string{} // checksums of the first host
	for _, n := range m.nodes {
		s, err := n.API.Status(m.ctx)
		if err != nil {
			return err
		}
		for _, x := range s.Networks {
			switch sum, known := first[x.Network]; {
			case n == m.nodes[0]:
				first[x.Network] = x.Checksum
			case known && sum != x.Checksum:
				return fmt.Errorf("tables of %q differ between %s and %s: %s", x.Network, m.nodes[0].Host.Name, n.Host.Name,
					m.streams(x.Network, n))
			}
		}
	}
	return nil
}

// streams tells in which streams a host differs from the first one.
func (m *mesh) streams(name string, n *fleet.Node) string {
	heads := map[string][2]string{}
	for i, from := range []*fleet.Node{m.nodes[0], n} {
		d, err := from.API.Network(m.ctx, name)
		if err != nil {
			return err.Error()
		}
		for _, s := range d.Streams {
			h := heads[s.Owner]
			h[i] = fmt.Sprintf("%+v", s)
			heads[s.Owner] = h
		}
	}
	var out []string
	for _, h := range heads {
		if h[0] != h[1] {
			out = append(out, fmt.Sprintf("%s and %s", h[0], h[1]))
		}
	}
	return strings.Join(out, "; ")
}

// healthy: no node says that it is degraded, or one at least says so with that
// reason, and no other.
func (m *mesh) healthy(reason string) error {
	said := reason == ""
	for _, n := range m.nodes {
		s, err := n.API.Status(m.ctx)
		if err != nil {
			return err
		}
		for _, d := range s.Degraded {
			if reason == "" || !strings.Contains(d, reason) {
				return fmt.Errorf("%s is degraded: %s", n.Host.Name, d)
			}
			said = true
		}
		if s.Preserving {
			return fmt.Errorf("%s believes that most of the mesh vanished", n.Host.Name)
		}
	}
	if !said {
		return fmt.Errorf("no node says that it is degraded: %q", reason)
	}
	return nil
}

// atRest: the daemons take as much memory, as many descriptors and as little
// processor as before.
func (m *mesh) atRest() error {
	before := map[int]time.Duration{}
	for _, n := range m.nodes {
		d, err := processor(n.Proc.PID)
		if err != nil {
			return err
		}
		before[n.Proc.PID] = d
		memory, files, err := usage(n.Proc.PID)
		if err != nil {
			return err
		}
		if was := m.memory[n.Proc.PID]; was > 0 && memory > was+moreMemory {
			return fmt.Errorf("meshd on %s has %d MiB of memory, %d before", n.Host.Name, memory>>20, was>>20)
		}
		if was := m.open[n.Proc.PID]; was > 0 && files > was+moreFiles {
			return fmt.Errorf("meshd on %s has %d descriptors open, %d before", n.Host.Name, files, was)
		}
	}
	began := time.Now()
	select {
	case <-time.After(window):
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
	for _, n := range m.nodes {
		d, err := processor(n.Proc.PID)
		if err != nil {
			return err
		}
		if busy := time.Duration(float64(d-before[n.Proc.PID]) / time.Since(began).Seconds()); busy > mostBusy {
			return fmt.Errorf("meshd on %s takes %v of processor in a second", n.Host.Name, busy)
		}
	}
	return nil
}

// usage returns a process's memory in bytes and how many descriptors it has.
func usage(pid int) (memory, files int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, 0, err
	}
	var size, pages int
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		return 0, 0, err
	}
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return pages * os.Getpagesize(), len(all), err
}

// processor returns the time that the threads of a process took so far.
func processor(pid int) (sum time.Duration, err error) {
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(all) == 0 {
		return 0, fmt.Errorf("no threads of %d: %w", pid, err)
	}
	for _, file := range all {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // a thread ended
		}
		var d int64
		if _, err := fmt.Sscan(string(text), &d); err != nil {
			return 0, err
		}
		sum += time.Duration(d)
	}
	return sum, nil
}
