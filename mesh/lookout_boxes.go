package mesh

import (
	"cmp"
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

// Containers are looked into a few at a time: those in which something was found
// last, and the next ones of the rest.
const (
	boxesPerTurn = 16
	boxesFound   = 8                     // of those with findings
	boxesTime    = 20 * time.Millisecond // of one turn; a look that has begun is ended
	boxesAsked   = 64                    // of doctor, on demand
	boxPatience  = 100 * time.Millisecond
	boxServes    = 4 // ports of a task
)

// boxLooks is what was found inside of sandboxes. It belongs to whoever looks at the
// host.
type boxLooks struct {
	last  string // name of the sandbox that was looked into last, of the turn
	found map[string][]hostcheck.Finding
}

// lookInside looks into some sandboxes, as many as most, and returns all that is known
// of all.
func (n *Node) lookInside(ctx context.Context, most int, limit time.Duration) []hostcheck.Finding {
	l := &n.lookout.boxes
	boxes := n.boxes.list()
	there := make(map[string]bool, len(boxes))
	for _, b := range boxes {
		there[b.name] = true
	}
	for name := range l.found {
		if !there[name] {
			delete(l.found, name)
		}
	}
	end := time.Now().Add(limit)
	again, turn := l.next(boxes, most)
	for i, b := range slices.Concat(again, turn) {
		if ctx.Err() != nil || time.Now().After(end) {
			break
		}
		found, ok := n.inside(ctx, b, max(limit, boxPatience))
		n.lookout.countInside()
		if i >= len(again) {
			l.last = b.name
		}
		switch {
		case !ok:
		case len(found) == 0:
			delete(l.found, b.name)
		default:
			l.found[b.name] = found
		}
	}
	return l.all()
}

// next returns the sandboxes that are looked into in this turn: some of those in which
// something was found, and the ones that follow the last of the turn before.
func (l *boxLooks) next(boxes []*box, most int) (again, turn []*box) {
	for _, b := range boxes {
		if len(l.found[b.name]) > 0 && len(again) < boxesFound {
			again = append(again, b)
		}
	}
	from, _ := slices.BinarySearchFunc(boxes, l.last, func(b *box, name string) int {
		return cmp.Or(cmp.Compare(b.name, name), -1) // behind it
	})
	for i := range boxes {
		if b := boxes[(from+i)%len(boxes)]; len(turn) < most && !slices.Contains(again, b) {
			turn = append(turn, b)
		}
	}
	return again, turn
}

// all returns what was found, sorted by sandbox, no more than a status can hold.
func (l *boxLooks) all() (all []hostcheck.Finding) {
	names := make([]string, 0, len(l.found))
	for name := range l.found {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i == toldBoxes {
			return append(all, hostcheck.Finding{
				Code: l.found[name][0].Code, Severity: hostcheck.Warning, Document: "OPERATIONS: When the host is against it",
				What: "there is something against meshd inside of " + strconv.Itoa(len(names)-i) + " more sandboxes",
			})
		}
		all = append(all, l.found[name]...)
	}
	return all
}

// inside looks into one sandbox, once that has time for it; false: it has not, or is
// about to end.
func (n *Node) inside(ctx context.Context, b *box, patience time.Duration) ([]hostcheck.Finding, bool) {
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
		return hostcheck.FindingsInside(f, n.insideOf(b)), true
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
func (n *Node) insideOf(b *box) *hostcheck.Inside {
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
	in.Serves = n.serves(&s)
	return in
}

// serves returns where the task of a sandbox listens.
func (n *Node) serves(s *savedSandbox) (all []hostcheck.Listen) {
	for _, name := range s.Networks {
		e, ok := n.reg.Snapshot().Task(name, s.Task)
		if !ok || e.Service != s.Service {
			continue
		}
		if len(e.Ports) == 0 {
			return []hostcheck.Listen{{}}
		}
		for _, p := range e.Ports[:min(len(e.Ports), boxServes)] {
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
