package registry

import (
	"context"
	"maps"
	"slices"
	"sync"

	"meshd/mesh/control"
	"meshd/mesh/source"
	"meshd/state"
)

// verdicts are those that are stated and not on disk yet: a verdict waits for no disk.
// It is safe for concurrent use; the zero value has none.
type verdicts struct {
	mu     sync.Mutex // guards health
	health map[source.Ref]state.Health
}

// apply puts verdicts into records that are about to be stated, and forgets those of
// tasks that go.
func (v *verdicts) apply(network string, changes []state.Change) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.health) == 0 {
		return
	}
	for i := range changes {
		c := &changes[i]
		ref := source.Ref{Network: network, ID: c.Key}
		h, ok := v.health[ref]
		switch {
		case c.Kind != state.KindEndpoint || !ok:
		case c.Delete:
			delete(v.health, ref)
		default:
			c.Body = string(withHealth([]byte(c.Body), h))
		}
	}
}

func (v *verdicts) set(ref source.Ref, h state.Health) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.health == nil {
		v.health = map[source.Ref]state.Health{}
	}
	v.health[ref] = h
}

// all returns a copy.
func (v *verdicts) all() map[source.Ref]state.Health {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.health)
}

// saved forgets verdicts that are on disk, and that no later ones have replaced.
func (v *verdicts) saved(done map[source.Ref]state.Health) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for ref, h := range done {
		if v.health[ref] == h {
			delete(v.health, ref)
		}
	}
}

// SetHealth implements source.Sink. The verdicts are stated in one step of the core,
// and saved by the upkeep, within a second if the disk works.
func (s *Sink) SetHealth(ctx context.Context, given []source.Verdict) error {
	if len(given) > source.MaxVerdicts {
		return control.Refuse(control.CodeTooLarge, "state fewer at a time", "%d verdicts, at most %d", len(given),
			source.MaxVerdicts)
	}
	return s.r.do(ctx, func(c Core) {
		if c.Yielded() || c.Left() {
			return
		}
		snapshot, changes := s.r.Snapshot(), map[string][]state.Change{}
		for _, v := range given {
			l := snapshot.networks[v.Ref.Network]
			if l == nil || !l.tasks.has(v.Ref.ID) || c.Store().Table(v.Ref.Network) == nil {
				continue
			}
			s.r.verdicts.set(v.Ref, v.Health)
			changes[v.Ref.Network] = append(changes[v.Ref.Network], l.tasks.at(v.Ref.ID).change(v.Ref.ID))
		}
		for _, name := range slices.Sorted(maps.Keys(changes)) {
			s.r.verdicts.apply(name, changes[name])
			s.r.check(c.Commit(name, changes[name]))
		}
	})
}

// verdicts saves what is stated of the health of tasks.
func (k *upkeep) verdicts(ctx context.Context) {
	all := k.r.verdicts.all()
	if len(all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	err := k.r.change(ctx, &update{edit: func(d *draft) error {
		for ref, h := range all {
			l := d.networks[ref.Network]
			if l == nil || !l.tasks.has(ref.ID) {
				continue
			}
			t := *l.tasks.at(ref.ID)
			if e, err := t.endpoint(ref.ID); err == nil && e.Health != h {
				t.Body = withHealth(t.Body, h)
				d.setTask(ref.Network, ref.ID, &t)
			}
		}
		return nil
	}})
	if k.logError("verdicts", err); err == nil {
		k.r.verdicts.saved(all)
	}
}

// withHealth returns the body of a record with another health.
func withHealth(body []byte, h state.Health) []byte {
	edited, err := state.WithHealth(body, h)
	if err != nil {
		return body
	}
	return edited
}

// Watch tells w of every task. It comes before Run.
func (r *Registry) Watch(w source.Watcher) { r.watcher = w }

// tellAll tells the watcher what a former life left.
func (r *Registry) tellAll() {
	d := r.Snapshot().draft()
	d.touchAll()
	r.tell(d)
}

// tell tells the watcher of the tasks that a draft touched.
func (r *Registry) tell(d *draft) {
	if r.watcher == nil {
		return
	}
	var changes []source.Registered
	s := r.Snapshot()
	for what := range d.touched {
		if what.bucket != bucketTasks {
			continue
		}
		c := source.Registered{Ref: source.Ref{Network: what.network, ID: what.name}, Gone: true}
		if l := s.networks[what.network]; l != nil {
			if t := l.tasks.at(what.name); t != nil {
				c.Unit, c.Checks, c.Gone = t.unit(), t.Checks, false
				c.Endpoint, _ = t.endpoint(what.name)
			}
		}
		changes = append(changes, c)
	}
	if len(changes) > 0 {
		r.watcher.Registered(changes)
	}
}

// originOf returns who states a task, or "".
func (s *Snapshot) originOf(network, id string) string {
	if l := s.networks[network]; l != nil {
		if t := l.tasks.at(id); t != nil {
			return t.origin()
		}
	}
	return ""
}
