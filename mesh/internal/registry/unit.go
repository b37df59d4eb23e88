package registry

import (
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/source"
	"meshd/state"
)

// unit returns which unit a task is of.
func (t *savedTask) unit() source.Unit {
	if t.Origin == "" {
		return source.Unit{Origin: source.API}
	}
	return source.Unit{Origin: t.Origin, Name: t.Unit}
}

// origin returns who states a task, for people.
func (t *savedTask) origin() string { return t.unit().At(t.Location) }

// unitKey is what the keys of the tasks of a unit begin with; the id follows.
func unitKey(unit source.Unit) string { return unit.Origin + "\x00" + unit.Name + "\x00" }

// unitUpdate is the update of a whole unit.
type unitUpdate struct {
	*update
	made []source.Change // of the tasks
}

// update returns the update that makes the tasks of a unit the wanted ones.
func (s *Sink) update(unit source.Unit, all []wanted, turn uint64) *unitUpdate {
	u := &unitUpdate{update: &update{}, made: make([]source.Change, len(all))}
	u.edit = func(d *draft) error {
		if !s.latest(unit, turn) {
			return errReplaced
		}
		u.parts = nil
		keep := map[source.Ref]bool{}
		for i := range all {
			keep[source.Ref{Network: all[i].parsed.Network, ID: all[i].parsed.Endpoint.ID}] = true
		}
		until := time.Now().Add(s.r.cfg.Bounds().Reservation)
		for _, ref := range d.refsOf(unit) {
			if !keep[ref] {
				u.parts = append(u.parts, s.r.removal(d, ref, until))
			}
		}
		for i := range all {
			w := &all[i]
			if w.err != nil {
				continue
			}
			part, made, err := s.edit(d, unit, w)
			if w.err, u.made[i] = err, made; part != nil {
				u.parts = append(u.parts, part)
			}
		}
		return nil
	}
	return u
}

// refsOf returns the tasks of a unit.
func (s *Snapshot) refsOf(unit source.Unit) (out []source.Ref) {
	prefix := unitKey(unit)
	for name, l := range s.networks {
		for key := range l.units.beginning(prefix) {
			out = append(out, source.Ref{Network: name, ID: strings.TrimPrefix(key, prefix)})
		}
	}
	return out
}

// removal removes a task from a draft and returns what is to be stated of it.
func (r *Registry) removal(d *draft, ref source.Ref, until time.Time) *update {
	service := d.networks[ref.Network].tasks.at(ref.ID).Service
	d.removeTask(ref.Network, ref.ID, until)
	return &update{
		network: ref.Network, service: service,
		changes: []state.Change{{Kind: state.KindEndpoint, Key: ref.ID, Delete: true}},
		prepare: func(c Core) (bool, error) {
			if l := r.Snapshot().networks[ref.Network]; l != nil {
				hostService(c, ref.Network, service, l)
			}
			return false, nil
		},
	}
}

// edit makes one task of a unit what is wanted.
func (s *Sink) edit(d *draft, unit source.Unit, w *wanted) (*update, source.Change, error) {
	p, api := &w.parsed, s.r.Tasks()
	id, service, task := p.Endpoint.ID, p.Endpoint.Service, w.task
	have := d.taskOf(unit, p.Network, id)
	made := source.Added
	if have != nil {
		if have.sameStatement(task) {
			return nil, source.Unchanged, nil
		}
		e, err := have.endpoint(id)
		if err != nil {
			return nil, source.Unchanged, err
		}
		kept := *task
		kept.Body = withHealth(task.Body, e.Health)
		task, made = &kept, source.Changed
	}
	if err := api.admitUnit(&d.Snapshot, p, have != nil); err != nil {
		return nil, source.Unchanged, err
	}
	d.setTask(p.Network, id, task)
	former := ""
	if have != nil && have.Service != service {
		former = have.Service
	}
	return &update{
		network: p.Network, service: service, changes: []state.Change{task.change(id)},
		prepare: func(c Core) (bool, error) {
			if err := joinNetwork(c, p.Network); err != nil {
				return false, err
			}
			l := s.r.Snapshot().networks[p.Network]
			if former != "" {
				hostService(c, p.Network, former, l)
			}
			h := api.hosting(c, p, l)
			c.Host(p.Network, service, h)
			return h.Settings != nil || h.PinVIP.IsValid(), nil
		},
		undo: func(d *draft) {
			if have != nil {
				d.setTask(p.Network, id, have)
			} else {
				d.forgetTask(p.Network, id)
			}
		},
		refused: func(err error) { w.err = quota(err) },
	}, made, nil
}

// admitUnit is admitRegistered for a task of a unit, which may be registered already.
func (api *TaskAPI) admitUnit(s *Snapshot, p *control.ParsedTask, registered bool) error {
	l := s.networks[p.Network]
	if l != nil {
		if err := l.admitPlace(&p.Endpoint, nil); err != nil {
			return err
		}
	}
	if registered {
		return nil
	}
	return api.admitRegistered(s, p, nil)
}

// ownedElsewhere refuses to let the API change what another origin states.
func (t *savedTask) ownedElsewhere(id string) error {
	switch unit := t.unit(); unit.Origin {
	case source.API:
		return nil
	case source.File:
		return control.Refuse(control.CodeRefused, "change or remove the file: it is read again by itself",
			"task %q is stated by the definition file %s", id, strings.TrimPrefix(t.origin(), "file:"))
	case source.Docker:
		return control.Refuse(control.CodeRefused, "stop the container, or change its labels",
			"task %q is stated by the container %s", id, unit.Name)
	}
	return control.Refuse(control.CodeRefused, "change it there", "task %q is stated by %s", id, t.origin())
}
