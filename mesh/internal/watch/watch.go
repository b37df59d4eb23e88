// Package watch turns changes of the views into the events that "meshctl watch" shows.
//
// A Watcher owns what it saw last of each network that the node takes part in, and which
// tasks are hidden with their dead owner, so that they are said to be restored when it is
// back. It reads views, which never wait, and asks Owners who is dead.
package watch

import (
	"context"
	"slices"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// Owners knows which nodes are dead. It is safe for concurrent use.
type Owners interface {
	// Dead returns those of the given nodes that are dead now.
	Dead(nodes []state.NodeID) map[state.NodeID]bool
	// DeadIn returns the dead nodes that have a stream in a network.
	DeadIn(ctx context.Context, network string) (map[state.NodeID]bool, error)
}

// Config is what a Watcher needs.
type Config struct {
	Source state.Source
	Owners Owners
	Emit   func(...control.Event) // is given the events, in order, by several goroutines
	Left   func(network string)   // is called when the node takes no part in a network any more
}

// Watcher follows the views of all networks that the node takes part in.
type Watcher struct{ cfg Config }

// New returns a Watcher that Run runs.
func New(cfg Config) *Watcher { return &Watcher{cfg} }

// pruneInterval is how often hidden tasks are looked through.
const pruneInterval = time.Minute

// Run follows every network until ctx ends. A network that the node left and joined again
// between two looks has another view. Run returns when the last follower has ended.
func (w *Watcher) Run(ctx context.Context) error {
	type follower struct {
		view state.View
		stop context.CancelFunc
	}
	followed := map[string]follower{}
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		names, stale := w.cfg.Source.Networks()
		for name, f := range followed {
			if w.cfg.Source.View(name) != f.view {
				f.stop()
				delete(followed, name)
				w.cfg.Left(name)
				w.cfg.Emit(control.Event{Type: control.EventNetworkRemoved, Network: name})
			}
		}
		for _, name := range names {
			v := w.cfg.Source.View(name)
			if _, known := followed[name]; known || v == nil {
				continue
			}
			sub, stop := context.WithCancel(ctx)
			followed[name] = follower{v, stop}
			w.cfg.Emit(control.Event{Type: control.EventNetworkAdded, Network: name})
			all.Go(func() { w.follow(sub, v) })
		}
		select {
		case <-stale:
		case <-ctx.Done():
			return nil
		}
	}
}

// follow emits what changes in one view until ctx ends.
func (w *Watcher) follow(ctx context.Context, v state.View) {
	sub := v.Subscribe()
	defer sub.Close()
	tick := time.NewTicker(pruneInterval)
	defer tick.Stop()
	seen := map[string]*state.Service{}
	hidden := hiddenTasks{}
	for _, s := range v.Services() {
		w.cfg.Emit(changes(nil, s, hidden, w.cfg.Owners.Dead)...)
		seen[s.Name] = s
	}
	for {
		select {
		case <-sub.Ready():
		case <-tick.C:
			w.prune(ctx, v.Network(), hidden)
			continue
		case <-ctx.Done():
			return
		}
		names := sub.Drain()
		slices.Sort(names)
		for _, name := range names {
			if name == "" {
				continue
			}
			s := v.Service(name)
			w.cfg.Emit(changes(seen[name], s, hidden, w.cfg.Owners.Dead)...)
			if seen[name] = s; s == nil {
				delete(seen, name)
			}
		}
	}
}

// prune forgets the hidden tasks of owners that have no stream any more, or live.
func (w *Watcher) prune(ctx context.Context, network string, hidden hiddenTasks) {
	if len(hidden) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if dead, err := w.cfg.Owners.DeadIn(ctx, network); err == nil {
		hidden.prune(func(o state.NodeID) bool { return dead[o] })
	}
}
