package mesh

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"meshd/lb/hostcheck"
	"meshd/lb/hostread"
	"meshd/mesh/sandbox"
	"meshd/state"
)

// servedPorts is how many ports of a sandbox's task are looked at.
const servedPorts = 4

// Sandboxes implements lookout.Host.
func (h *hostView) Sandboxes() []string {
	boxes := h.n.boxes.list()
	names := make([]string, len(boxes))
	for i, b := range boxes {
		names[i] = b.name
	}
	return names
}

// LookInside implements lookout.Host. The sandbox's own goroutine reads, once it has time
// for it; ok is false where it has not, or is about to end.
func (h *hostView) LookInside(ctx context.Context, name string, timeout time.Duration) (found []hostcheck.Finding,
	ok bool,
) {
	b, err := h.n.boxes.find(name)
	if err != nil || !closed(b.ready) {
		return nil, false
	}
	reply := make(chan *hostcheck.Facts, 1)
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case b.looks <- reply:
	case <-b.ended:
		return nil, false
	case <-wait.Done():
		return nil, false
	}
	select {
	case f := <-reply:
		if f == nil {
			return nil, false
		}
		return hostcheck.FindingsInside(f, h.insideOf(b)), true
	case <-b.ended:
		return nil, false
	case <-ctx.Done(): // what is read meanwhile is dropped
		return nil, false
	}
}

// readInside reads the sandbox's namespace; nil: it cannot be entered.
func (b *box) readInside() (f *hostcheck.Facts) {
	_ = b.ns.Do(func() error { // that it is gone is noticed elsewhere
		f = hostread.ReadContainer(hostread.Want{})
		return nil
	})
	return f
}

// insideOf returns what the node does in a sandbox.
func (h *hostView) insideOf(b *box) *hostcheck.Inside {
	s, _ := b.record()
	in := &hostcheck.Inside{
		Name: b.name, Enter: enter(s.PID, s.Netns), Driver: b.balancer.Counters().Driver,
		Addresses: s.Addresses,
	}
	b.mu.Lock()
	if b.bound != nil {
		in.DNS = netip.AddrPortFrom(sandbox.ServerAddr.Addr(), s.Port)
	}
	b.mu.Unlock()
	in.Pools = slices.SortedFunc(maps.Keys(b.balancer.Pools()), netip.Prefix.Compare)
	in.Serves = h.serves(&s)
	return in
}

// serves returns where the task of a sandbox listens.
func (h *hostView) serves(s *savedSandbox) (all []hostcheck.Listen) {
	for _, name := range s.Networks {
		e, ok := h.n.reg.Snapshot().Task(name, s.Task)
		if !ok || e.Service != s.Service {
			continue
		}
		if len(e.Ports) == 0 {
			return []hostcheck.Listen{{}}
		}
		for _, p := range e.Ports[:min(len(e.Ports), servedPorts)] {
			all = append(all, hostcheck.Listen{Number: p.Number, UDP: p.Proto == state.UDP})
		}
		return all
	}
	return nil
}

// enter returns the words before a command that run it in a namespace.
func enter(pid int, path string) []string {
	if pid > 0 {
		return []string{"nsenter", "-t", strconv.Itoa(pid), "-n"}
	}
	return []string{"nsenter", "--net=" + path}
}
