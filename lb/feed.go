package lb

import (
	"slices"

	"meshd/state"
)

// viewFeed keeps a planner up to date with the views of the networks that are
// balanced here. It belongs to one goroutine; only ready is written by others.
type viewFeed struct {
	source   state.Source
	balanced func(network string) bool // whether a network is to be balanced here
	planner  *planner
	ready    chan struct{} // capacity 1: collect has something to do
	watches  map[string]*watch
}

// watch is the subscription to one network, with the goroutine that forwards its
// announcements.
type watch struct {
	view state.View
	sub  *state.Subscription
	stop chan struct{} // closed to end the goroutine
}

func newViewFeed(source state.Source, balanced func(string) bool, p *planner) viewFeed {
	return viewFeed{
		source: source, balanced: balanced, planner: p,
		ready: make(chan struct{}, 1), watches: map[string]*watch{},
	}
}

// follow subscribes to the views of these networks, as far as they are balanced
// here, and ends all other subscriptions. It reports whether one began or ended:
// then everything in the plan may have changed.
func (f *viewFeed) follow(names []string) (changed bool) {
	for name, w := range f.watches {
		if !slices.Contains(names, name) || f.source.View(name) != w.view {
			w.end()
			delete(f.watches, name)
			f.planner.DropNetwork(name)
			changed = true
		}
	}
	for _, name := range names {
		if f.watches[name] != nil || !f.balanced(name) {
			continue
		}
		if view := f.source.View(name); view != nil {
			f.watches[name] = f.subscribe(view)
			f.planNetwork(name, view)
			changed = true
		}
	}
	return changed
}

// subscribe starts to forward what a view announces.
func (f *viewFeed) subscribe(view state.View) *watch {
	w := &watch{view: view, sub: view.Subscribe(), stop: make(chan struct{})}
	go func() {
		for {
			select {
			case <-w.stop:
				return
			case <-w.sub.Ready():
			}
			select {
			case f.ready <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

// end closes the subscription and ends its goroutine.
func (w *watch) end() {
	close(w.stop)
	w.sub.Close()
}

// planNetwork plans all services of a network, and removes those that the planner
// has from an earlier view.
func (f *viewFeed) planNetwork(name string, view state.View) {
	f.planDefinition(name, view)
	gone := map[string]bool{}
	for _, s := range f.planner.serviceNames(name) {
		gone[s] = true
	}
	for _, s := range view.Services() {
		delete(gone, s.Name)
		f.planner.Set(name, s.Name, s)
	}
	for s := range gone {
		f.planner.Set(name, s, nil)
	}
}

func (f *viewFeed) planDefinition(name string, view state.View) {
	def := view.Def()
	def.Name = name
	f.planner.SetNetwork(def)
}

// collect plans what the subscriptions announced. It reports whether a definition
// changed or a network synced: pools and removals depend on both, so everything in
// the plan may have changed.
func (f *viewFeed) collect() (changed bool) {
	for network, w := range f.watches {
		for _, name := range w.sub.Drain() {
			if name == "" { // the definition, or the first sync
				f.planDefinition(network, w.view)
				changed = true
				continue
			}
			f.planner.Set(network, name, w.view.Service(name))
		}
	}
	return changed
}

// follows reports whether the view of a network is subscribed to.
func (f *viewFeed) follows(network string, view state.View) bool {
	w := f.watches[network]
	return w != nil && w.view == view
}

// synced reports whether the view of a network is subscribed to and complete.
func (f *viewFeed) synced(network string) bool {
	w := f.watches[network]
	return w != nil && w.view.Synced()
}

// allSynced reports whether there are subscriptions, and all their views are
// complete.
func (f *viewFeed) allSynced() bool {
	for network := range f.watches {
		if !f.synced(network) {
			return false
		}
	}
	return len(f.watches) > 0
}

// close ends all subscriptions.
func (f *viewFeed) close() {
	for _, w := range f.watches {
		w.end()
	}
}
