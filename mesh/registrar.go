package mesh

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// registrar owns the registry and its file. Changes go through its goroutine:
// those that wait are made together, written in one write, and stated in one
// step of the core (N2). So nothing is stated, or acknowledged, that is not on
// disk; a slow disk makes groups larger; and nothing but the callers of change
// waits for it.
type registrar struct {
	save func(b []byte) error                                                       // replaces tasks.json
	do   func(ctx context.Context, f func(c *gossip.Core, now time.Duration)) error // gossip.Host.Do
	log  *slog.Logger

	claimed func() // called when services were stated, which may have claimed addresses

	current atomic.Pointer[registry] // as it is on disk
	queue   chan *update
	ended   chan struct{} // closed when run has returned

	writes, changes, failures atomic.Uint64 // so far
}

// update is one change of the registry and of what follows from it.
type update struct {
	// edit changes the draft, or refuses. It must not wait for anything. On an
	// error it must have left the draft as it was.
	edit func(d *draft) error
	// prepare is called by the core's goroutine once the draft is on disk, before
	// changes are committed; nil: nothing to do. asked says that it asked for
	// settings or an address, which the next one of that service must see committed.
	prepare func(c *gossip.Core, now time.Duration) (asked bool, err error)
	// undo takes back the edit if prepare or the commit fails; nil: it stays.
	undo func(d *draft)

	network string // where changes are committed
	service string // that prepare is about
	changes []state.Change

	ctx     context.Context
	claimed atomic.Bool // by whoever comes first: the goroutine, or a caller that leaves
	err     error       // for done
	done    chan struct{}
}

// The bounds of the registrar.
const (
	maxWaiting = 1024 // updates; more wait to be put there
	maxGroup   = 512  // updates made together
)

func newRegistrar(d *dataDir, r *registry, log *slog.Logger) *registrar {
	g := &registrar{
		save: func(b []byte) error { return d.put(fileTasks, b) }, log: log,
		claimed: func() {}, queue: make(chan *update, maxWaiting), ended: make(chan struct{}),
	}
	g.current.Store(r)
	return g
}

// registry returns what is registered: all of it is on disk. It must not be changed.
func (g *registrar) registry() *registry { return g.current.Load() }

// change makes an update and returns when it is on disk and stated. If ctx ends
// while the update waits for its turn, it is not made; if it ends later, the
// error says that it may be. After an error the update's functions may still be
// running: what they write may be read only when change returns nil.
func (g *registrar) change(ctx context.Context, u *update) error {
	u.ctx, u.done = ctx, make(chan struct{})
	select {
	case g.queue <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-g.ended:
		return gossip.ErrStopped
	}
	select {
	case <-u.done:
		return u.err
	case <-ctx.Done():
		if u.claimed.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		return control.Refuse(control.CodeTimeout,
			"meshctl task ls says what came of it; meshctl status, whether the disk works",
			"the change is still being written: %v", ctx.Err())
	case <-g.ended:
		if u.claimed.CompareAndSwap(false, true) {
			return gossip.ErrStopped
		}
		<-u.done
		return u.err
	}
}

// run makes updates until ctx ends.
func (g *registrar) run(ctx context.Context) error {
	defer close(g.ended)
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-g.queue:
			g.group(ctx, g.take(u))
		}
	}
}

// take claims the first update and those that wait behind it.
func (g *registrar) take(first *update) []*update {
	group := make([]*update, 0, len(g.queue)+1)
	for u := first; ; {
		if u.claimed.CompareAndSwap(false, true) {
			group = append(group, u)
		}
		if len(group) == maxGroup {
			return group
		}
		select {
		case u = <-g.queue:
		default:
			return group
		}
	}
}

// group makes updates together.
func (g *registrar) group(ctx context.Context, us []*update) {
	defer func() {
		for _, u := range us {
			close(u.done)
		}
	}()
	d, edited := g.registry().draft(), make([]*update, 0, len(us))
	for _, u := range us {
		if u.err = u.edit(d); u.err == nil {
			edited = append(edited, u)
		}
	}
	if err := g.install(d); err != nil {
		g.failures.Add(1)
		for _, u := range edited {
			u.err = control.Refuse(control.CodeUnavailable, "free space or fix the data directory, then try again",
				"it could not be written: %v", err)
		}
		return
	}
	g.changes.Add(uint64(len(edited)))
	g.state(ctx, edited)
	if slices.ContainsFunc(edited, func(u *update) bool { return u.service != "" }) {
		g.claimed() // so that a claim that follows is soon on disk
	}
	g.undo(edited)
}

// install writes a draft and makes it the registry.
func (g *registrar) install(d *draft) error {
	if !d.changed() {
		return nil
	}
	dirty, r := d.dirty, d.done()
	if dirty {
		g.writes.Add(1)
		if err := g.write(r); err != nil {
			return err
		}
	}
	g.current.Store(r)
	return nil
}

func (g *registrar) write(r *registry) error {
	b, err := r.encode(time.Now())
	if err != nil {
		return err
	}
	return g.save(b)
}

// state tells the core what is on disk now, in one step.
func (g *registrar) state(ctx context.Context, us []*update) {
	err := g.do(ctx, func(c *gossip.Core, now time.Duration) {
		var s statement
		for _, u := range us {
			s.add(c, now, u)
		}
		s.flush(c, now)
	})
	if err != nil {
		for _, u := range us {
			u.err = err
		}
	}
}

// undo takes back what could not be stated: a quota, another node with our name,
// or the end of this one stood against it.
func (g *registrar) undo(us []*update) {
	d := g.registry().draft()
	for _, u := range us {
		if u.err != nil && u.undo != nil {
			u.undo(d)
		}
	}
	if err := g.install(d); err != nil {
		g.log.Error("a registration that was refused is still on disk, and is tried again at the next start", "error", err)
	}
}

// statement collects what updates commit, to commit it together: claims are
// looked through once for each network, and not once for each update.
type statement struct {
	order   []string // networks
	waiting map[string][]*update
	asked   map[[2]string]bool // networks and services of which something is asked
}

func (s *statement) add(c *gossip.Core, now time.Duration, u *update) {
	if s.asked[[2]string{u.network, u.service}] {
		s.flush(c, now)
	}
	if s.waiting == nil {
		s.waiting, s.asked = map[string][]*update{}, map[[2]string]bool{}
	}
	if u.prepare != nil {
		asked, err := u.prepare(c, now)
		if u.err = err; err != nil {
			return
		}
		s.asked[[2]string{u.network, u.service}] = asked
	} else if len(u.changes) == 0 {
		return
	}
	if s.waiting[u.network] == nil {
		s.order = append(s.order, u.network)
	}
	s.waiting[u.network] = append(s.waiting[u.network], u)
}

// flush commits what waits. If a network's changes are refused as a whole, each
// update is committed by itself, so that one of them stands against no other.
func (s *statement) flush(c *gossip.Core, now time.Duration) {
	for _, name := range s.order {
		us := s.waiting[name]
		var all []state.Change
		for _, u := range us {
			all = append(all, u.changes...)
		}
		if c.Commit(now, name, all) == nil {
			continue
		}
		for _, u := range us {
			u.err = c.Commit(now, name, u.changes)
		}
	}
	s.order, s.waiting, s.asked = nil, nil, nil
}
