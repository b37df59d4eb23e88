package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/source"
	"meshd/state"
)

// Sink is what sources of tasks hand units to (N10). It is safe for concurrent use.
type Sink struct {
	r *Registry

	mu       sync.Mutex                    // guards what follows
	reported map[source.Unit]bool          // in this life
	turns    uint64                        // how often units were handed over in this life
	handed   map[source.Unit]uint64        // in which turn a unit with tasks was last; at most source.MaxUnits
	waiting  map[source.Unit][]source.Task // units with tasks that could not be registered
	reasons  map[source.Unit][]string      // why, for people
}

var _ source.Sink = (*Sink)(nil)

func newSink(r *Registry) *Sink {
	return &Sink{
		r: r, handed: map[source.Unit]uint64{}, reported: map[source.Unit]bool{}, waiting: map[source.Unit][]source.Task{},
		reasons: map[source.Unit][]string{},
	}
}

// Sink returns what sources hand units to.
func (r *Registry) Sink() *Sink { return r.sink }

// wanted is one task of a unit, checked.
type wanted struct {
	parsed control.ParsedTask
	task   *savedTask
	err    error // why it cannot be registered at the moment
}

// Replace implements source.Sink.
func (s *Sink) Replace(ctx context.Context, unit source.Unit, tasks []source.Task) ([]source.Outcome, error) {
	if err := unit.Check(); err != nil {
		return nil, err
	}
	if unit.Origin == source.API && unit.Name == "" {
		return nil, control.Refuse(control.CodeInvalid, "name the set", "unit: single tasks of the API are no unit")
	}
	turn, err := s.beginTurn(unit, len(tasks) > 0)
	if err != nil {
		return nil, err
	}
	return s.replace(ctx, unit, tasks, turn)
}

// beginTurn notes that a unit is handed over, unless it were one more than there may be.
func (s *Sink) beginTurn(unit source.Unit, hasTasks bool) (turn uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handed[unit] == 0 && hasTasks && len(s.handed) >= source.MaxUnits {
		return 0, control.Refuse(control.CodeTooLarge, "end what states the others",
			"unit %s: there are %d units, at most %d", unit, len(s.handed), source.MaxUnits)
	}
	s.turns++
	s.handed[unit] = s.turns
	return s.turns, nil
}

// latest reports whether a unit was not handed over again since that turn.
func (s *Sink) latest(unit source.Unit, turn uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handed[unit] == turn
}

// errReplaced is the end of a retry of what was handed over anew meanwhile.
var errReplaced = errors.New("the unit was handed over again")

func (s *Sink) replace(ctx context.Context, unit source.Unit, tasks []source.Task, turn uint64) (
	[]source.Outcome, error,
) {
	all, err := s.parse(unit, tasks)
	if err != nil {
		return nil, err
	}
	snapshot := s.r.Snapshot()
	for i := range all {
		if w := &all[i]; snapshot.differs(unit, w) {
			w.err = s.r.Tasks().admitMesh(ctx, &w.parsed)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	u := s.update(unit, all, turn)
	if err := s.r.change(ctx, u.update); err != nil {
		return nil, err
	}
	s.remember(unit, tasks, all, turn)
	out := make([]source.Outcome, len(all))
	for i := range all {
		out[i] = source.Outcome{ID: all[i].parsed.Endpoint.ID, Change: u.made[i], Err: all[i].err}
		if all[i].err != nil {
			out[i].Change = source.Waiting
		}
	}
	return out, nil
}

// parse checks the tasks of a unit.
func (s *Sink) parse(unit source.Unit, tasks []source.Task) ([]wanted, error) {
	if len(tasks) > source.MaxTasks {
		return nil, control.Refuse(control.CodeTooLarge, "divide it", "unit %s: %d tasks, at most %d", unit, len(tasks),
			source.MaxTasks)
	}
	seen := map[source.Ref]string{}
	all := make([]wanted, len(tasks))
	for i := range tasks {
		t := &tasks[i]
		at := unit.At(t.Location)
		p, err := t.Parse()
		if err == nil {
			err = t.Check()
		}
		if err == nil && p.Endpoint.ID == "" {
			p.Endpoint.ID = derivedID(s.r.cfg.Self, unit, &p)
		}
		if err == nil {
			err = p.Endpoint.Validate()
		}
		if err != nil {
			return nil, err
		}
		ref := source.Ref{Network: p.Network, ID: p.Endpoint.ID}
		if first, twice := seen[ref]; twice {
			return nil, control.Refuse(control.CodeInvalid, "give each an id, a slot, an address or ports of its own",
				"id: %s and %s state one task, %q in network %q", first, at, ref.ID, ref.Network)
		}
		seen[ref] = at
		p.Endpoint.Health = t.Health
		all[i] = wanted{parsed: p, task: &savedTask{
			Service: p.Endpoint.Service, Body: state.AppendEndpoint(nil, &p.Endpoint), Origin: unit.Origin, Unit: unit.Name,
			Location: t.Location, Checks: bytes.Clone(t.Checks),
		}}
	}
	return all, nil
}

// derivedID is the id of a task that is given none: the same each time.
func derivedID(self state.NodeID, unit source.Unit, p *control.ParsedTask) string {
	e := &p.Endpoint
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %d %v %v %v", self, unit.Origin, unit.Name, p.Network, e.Service,
		e.Slot, e.IP4, e.IP6, e.Ports))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:25]
}

// differs reports whether a task of a unit is not registered as it is wanted.
func (s *Snapshot) differs(unit source.Unit, w *wanted) bool {
	have := s.taskOf(unit, w.parsed.Network, w.parsed.Endpoint.ID)
	return have == nil || !have.sameStatement(w.task)
}

// taskOf returns a task if it is of that unit.
func (s *Snapshot) taskOf(unit source.Unit, network, id string) *savedTask {
	l := s.networks[network]
	if l == nil {
		return nil
	}
	if t := l.tasks.at(id); t != nil && t.unit() == unit {
		return t
	}
	return nil
}

// sameStatement reports whether a task says what another one says, but for its health.
func (t *savedTask) sameStatement(o *savedTask) bool {
	return t.Service == o.Service && t.Location == o.Location && bytes.Equal(t.Checks, o.Checks) &&
		bytes.Equal(withHealth(t.Body, state.HealthPassing), withHealth(o.Body, state.HealthPassing))
}

// Keep implements source.Sink.
func (s *Sink) Keep(_ context.Context, unit source.Unit) error {
	if err := unit.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reported[unit] = true
	return nil
}

// Synced implements source.Sink.
func (s *Sink) Synced(ctx context.Context, origin string) error {
	if err := source.CheckOrigin(origin); err != nil {
		return err
	}
	for _, unit := range s.r.Snapshot().unitsOf(origin) {
		s.mu.Lock()
		there := s.reported[unit]
		s.mu.Unlock()
		if there {
			continue
		}
		if _, err := s.replace(ctx, unit, nil, 0); err != nil && !errors.Is(err, errReplaced) {
			return err
		}
		s.r.log.Info("what a former life was told of is gone", "unit", unit.String())
	}
	return nil
}

// unitsOf returns the units of an origin that have tasks.
func (s *Snapshot) unitsOf(origin string) []source.Unit {
	units := map[source.Unit]bool{}
	for _, l := range s.networks {
		for key := range l.units.beginning(origin + "\x00") {
			name, _, _ := strings.Cut(key[len(origin)+1:], "\x00")
			units[source.Unit{Origin: origin, Name: name}] = true
		}
	}
	return slices.SortedFunc(maps.Keys(units), func(a, b source.Unit) int { return strings.Compare(a.Name, b.Name) })
}

// remember keeps which tasks wait, and says when that changes.
func (s *Sink) remember(unit source.Unit, tasks []source.Task, all []wanted, turn uint64) {
	var why []string
	for i := range all {
		if all[i].err != nil {
			why = append(why, fmt.Sprintf("%s: %v", unit.At(all[i].task.Location), all[i].err))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handed[unit] != turn {
		return // who handed it over again says what is so now
	}
	s.reported[unit] = true
	if len(tasks) == 0 {
		delete(s.reported, unit) // nothing is held of it either
		delete(s.handed, unit)
	}
	changed := !slices.Equal(s.reasons[unit], why)
	if len(why) == 0 {
		delete(s.waiting, unit)
		delete(s.reasons, unit)
	} else if changed || s.waiting[unit] == nil {
		s.reasons[unit] = why
	}
	if len(why) > 0 {
		s.waiting[unit] = slices.Clone(tasks)
	}
	switch {
	case changed && len(why) > 0:
		s.r.log.Warn("tasks wait to be registered", "unit", unit.String(), "tasks", len(why), "first", why[0])
	case changed:
		s.r.log.Info("no task of the unit waits any more", "unit", unit.String())
	}
}

// maxNamedWaiting is how many tasks Waiting names.
const maxNamedWaiting = 10

// Waiting says which tasks of sources cannot be registered at the moment, and why, for
// people: the first few, and how many more.
func (s *Sink) Waiting() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	units := slices.SortedFunc(maps.Keys(s.reasons), func(a, b source.Unit) int {
		return strings.Compare(a.String(), b.String())
	})
	more := 0
	for _, unit := range units {
		for _, text := range s.reasons[unit] {
			if len(out) < maxNamedWaiting {
				out = append(out, text)
			} else {
				more++
			}
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%d more tasks wait to be registered", more))
	}
	return out
}

// How often, and how many at a time, units with tasks that wait are tried again.
const (
	retryEvery = time.Second
	retryMost  = 64
)

// retry hands units with tasks that wait over again until ctx ends.
func (s *Sink) retry(ctx context.Context) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		again := maps.Clone(s.waiting)
		s.mu.Unlock()
		n := 0
		for unit := range again { // in any order, so that each has its turn
			if n++; n > retryMost || ctx.Err() != nil {
				break
			}
			s.mu.Lock()
			tasks, still := s.waiting[unit]
			turn := s.handed[unit]
			s.mu.Unlock()
			if still {
				_, _ = s.replace(ctx, unit, tasks, turn) // it says itself what changed
			}
		}
	}
}
