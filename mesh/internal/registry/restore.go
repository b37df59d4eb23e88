package registry

import (
	"maps"
	"slices"
	"time"

	"meshd/state"
)

// RestoreHold counts a sandbox that was found again into its networks. It comes
// before Restore.
func (r *Registry) RestoreHold(networks []string) {
	for _, name := range networks {
		r.restored.hold(name, 1)
	}
}

// RestoreWithout forgets the task of a sandbox that ended while the daemon was away,
// as if it were removed now. It comes before Restore.
func (r *Registry) RestoreWithout(networks []string, service, task string) {
	for _, name := range networks {
		if l := r.restored.networks[name]; l != nil && l.tasks.has(task) && l.tasks.at(task).Service == service {
			r.restored.removeTask(name, task, time.Now().Add(r.cfg.Bounds().Reservation))
		}
	}
}

// Restore states again what the node stated before, in one step per network, so that
// peers swap the old life for the new one without a gap (S4). It writes nothing: the
// start may still fail.
func (r *Registry) Restore(c Core) {
	s := &Snapshot{networks: r.restored.networks, removed: r.restored.removed}
	r.current.Store(s)
	node := state.Change{Kind: state.KindNode, Body: string(state.AppendNode(nil, r.cfg.Info()))}
	r.check(c.Commit("", append(s.globals(), node)))
	for _, name := range r.cfg.KeepNetworks {
		r.check(c.JoinNetwork(name))
	}
	for _, name := range slices.Sorted(maps.Keys(s.networks)) {
		l := s.networks[name]
		if !l.used() {
			continue
		}
		r.check(c.JoinNetwork(name))
		hostAll(c, name, l)
		r.check(c.Commit(name, l.changes()))
	}
}

// Claim writes everything anew, once the start cannot fail any more. It reports whether
// the start changed anything of it.
func (r *Registry) Claim() (changed bool, err error) {
	changed = len(r.restored.touched) > 0
	r.restored.touchAll()
	err = r.install(r.restored)
	r.restored = nil
	return changed, err
}

// hostAll tells the core what this node does for each service of a network.
func hostAll(c Core, network string, l *localNetwork) {
	for s := range l.counts.all() {
		hostService(c, network, s, l)
	}
	for s := range l.services.all() {
		if l.counts.at(s) == 0 {
			hostService(c, network, s, l)
		}
	}
}

// hostService tells the core what this node does for one service.
func hostService(c Core, network, service string, l *localNetwork) {
	h := state.Hosting{Tasks: l.tasksOf(service)}
	if claim := l.services.at(service); h.Tasks == 0 && claim != nil && !claim.until.IsZero() {
		h.Until = max(time.Until(claim.until)+c.Now(), time.Second)
	}
	c.Host(network, service, h)
}
