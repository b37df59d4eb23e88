package box

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"meshd/lb/hostcheck"
	"meshd/lb/hostread"
	"meshd/mesh/sandbox"
)

// maxListens bounds the ports of a task that a look goes by.
const maxListens = 4

// Look looks into the sandbox for what is against meshd there (L13), once its goroutine
// has time for it. ok is false if it has not within patience, or is about to end.
func (b *Sandbox) Look(ctx context.Context, patience time.Duration) (found []hostcheck.Finding, ok bool) {
	if !closed(b.ready) {
		return nil, false
	}
	reply := make(chan *hostcheck.Facts, 1)
	wait, cancel := context.WithTimeout(ctx, patience)
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
		return hostcheck.FindingsInside(f, b.inside()), true
	case <-b.ended:
		return nil, false
	case <-ctx.Done(): // what is read until then is dropped
		return nil, false
	}
}

// readInside reads the sandbox's namespace; nil: it cannot be entered.
func (b *Sandbox) readInside() (f *hostcheck.Facts) {
	_ = b.ns.Do(func() error { // that it is gone is noticed elsewhere
		f = hostread.ReadContainer(hostread.Want{})
		return nil
	})
	return f
}

// inside returns what the node does in the sandbox.
func (b *Sandbox) inside() *hostcheck.Inside {
	s := b.record.load()
	in := &hostcheck.Inside{
		Name: b.name, Enter: enter(s.PID, s.Netns), Driver: b.balancer.Driver(), Addresses: s.Addresses,
		Pools: b.balancer.Pools(), Serves: b.serves(&s),
	}
	if b.names.answering() {
		in.DNS = netip.AddrPortFrom(sandbox.ServerAddr.Addr(), s.Port)
	}
	return in
}

// serves returns where the task of the sandbox listens.
func (b *Sandbox) serves(s *Saved) (all []hostcheck.Listen) {
	for _, name := range s.Networks {
		ports, ok := b.m.cfg.Registry.Listens(name, s.Service, s.Task)
		if !ok {
			continue
		}
		if len(ports) == 0 {
			return []hostcheck.Listen{{}}
		}
		for _, p := range ports[:min(len(ports), maxListens)] {
			all = append(all, hostcheck.Listen{Number: p.Number, UDP: p.UDP})
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
