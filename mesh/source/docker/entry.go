package docker

import (
	"reflect"
	"slices"
	"time"

	"meshd/mesh/source"
	"meshd/state"
)

// entry is one container that the source looks after. It belongs to the goroutine of
// Run.
type entry struct {
	id    string    // of the container
	since time.Time // when its state, as shown, changed

	// When to look at it.

	dirty      bool      // it may have changed
	queued     bool      // it is in the queue of looks
	inspecting bool      // a look is under way
	notBefore  time.Time // when the next look may begin
	failures   int       // looks that failed, one after the other
	ends       uint64    // counts the signs that it has ended, which a look under way may not know of

	// What made it dirty.

	lastEvent time.Time // when an event last spoke of it
	byList    time.Time // when the list began that found another container than was known; zero: none did
	summary   string    // what the last list said of it
	seenBy    uint64    // number of that list

	// What the last look found, and what the kernel says.

	d       *description // of the last look; nil: there was none yet
	process Process      // of the life that d describes; nil: not watched
	watched life         // whose process is watched, or was found to be invisible
	ended   life         // that is over by the kernel's word, whatever the engine says
	unseen  int          // looks at watched at which its process was not found

	// What is handed over.

	want      []source.Task // of the unit; none: it is not served
	verdict   state.Health  // of the engine's check, if it has one and this is known
	known     bool          // verdict is
	verdictOf time.Time     // start of the life that verdict is about
	version   uint64        // counts changes of want and verdict
	done      uint64        // the version that was handed over
	stated    []source.Task // the unit as the sink has it
	again     bool          // the unit is handed over although the sink has it
	handing   bool          // a handover is under way
	retries   int           // handovers that failed, one after the other
	retryAt   time.Time     // when the next handover may begin
	waiting   []string      // why tasks wait, as the sink says
	invalid   string        // why the sink refuses the unit for good

	// Its sandbox.

	attached  time.Time // start of the life that is attached
	attaching bool      // it is under way
	attempts  int       // that failed, one after the other
	attachAt  time.Time // when the next attempt may begin
	unboxed   string    // why it is not attached

	// What is said of it.

	trouble string // why it cannot be looked at or handed over at the moment
	logged  string // what was last logged
}

// life is one run of a container's first process.
type life struct {
	pid     int
	started time.Time
}

// unit names what is handed over for the container.
func (e *entry) unit() source.Unit { return source.Unit{Origin: source.Docker, Name: e.id[:taskID]} }

// life returns the run that the last look found; zero: none.
func (e *entry) life() life {
	if e.d == nil || !e.d.running {
		return life{}
	}
	return life{e.d.pid, e.d.started}
}

// lives says that the container runs by the word of the engine and of the kernel.
func (e *entry) lives() bool { l := e.life(); return l != life{} && l != e.ended }

// idle says that nothing is under way or to be done for the container.
func (e *entry) idle() bool {
	return e.version == e.done && !e.handing && !e.inspecting && !e.attaching && !e.dirty
}

// plan makes up what is to be handed over after a look, or a sign of its end. It
// reports whether that is something else than before.
func (e *entry) plan() (changed bool) {
	var want []source.Task
	verdict, known := e.verdict, e.known
	if e.lives() && e.d.refused == "" {
		want = slices.Clone(e.d.tasks)
		verdict, known = e.currentVerdict()
		for i := range want {
			if known {
				want[i].Health = verdict
			}
		}
	}
	changed = !sameTasks(want, e.want)
	if changed || known && (!e.known || verdict != e.verdict) && len(want) > 0 {
		e.version++
		e.retries, e.retryAt, e.invalid, e.waiting = 0, time.Time{}, "", nil
	}
	if len(want) > 0 {
		e.verdictOf = e.d.started
	}
	e.want, e.verdict, e.known = want, verdict, known
	return changed
}

// currentVerdict returns the verdict of the engine's check. An engine that was restarted under a
// running container says that it is starting, because it has forgotten what it found: the
// verdict on the same life stays until there is another one.
func (e *entry) currentVerdict() (verdict state.Health, known bool) {
	switch {
	case !e.d.checked:
		return state.HealthPassing, false
	case e.d.verdict != state.HealthStarting:
		return e.d.verdict, true
	case e.known && e.verdictOf.Equal(e.d.started):
		return e.verdict, true
	case e.d.recheck:
		return state.HealthStarting, false // the sink may know one of a former life of the node
	}
	return state.HealthStarting, true
}

// sameTasks says that two units are the same but for health.
func sameTasks(a, b []source.Task) bool {
	return slices.EqualFunc(a, b, func(a, b source.Task) bool {
		a.Health, b.Health = 0, 0
		return reflect.DeepEqual(a, b)
	})
}

// verdicts returns the verdict on each task of the unit.
func (e *entry) verdicts() (all []source.Verdict) {
	if !e.known {
		return nil
	}
	for i := range e.want {
		t := &e.want[i]
		all = append(all, source.Verdict{Ref: source.Ref{Network: t.Network, ID: t.ID}, Health: e.verdict})
	}
	return all
}

// backoff returns how long to wait after so many failures.
func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 5), lastDelay)
}
