package checker

import (
	"bytes"
	"time"

	"meshd/mesh/health"
	"meshd/mesh/source"
	"meshd/state"
)

// task is a registered task that has checks.
type task struct {
	ref      source.Ref
	endpoint state.Endpoint // as it is registered
	encoded  []byte         // its checks, as they are kept
	checks   []*entry       // in their order
	stated   state.Health   // the last verdict, as it is, or is to be, stated
	bad      string         // why the checks cannot be read; "" if they can
}

// verdict is what follows from the checks of a task.
func (t *task) verdict() state.Health {
	worst := health.Healthy
	for _, e := range t.checks {
		worst = max(worst, e.tracker.Effective())
	}
	switch worst {
	case health.Healthy:
		return state.HealthPassing
	case health.Failing:
		return state.HealthFailing
	}
	return state.HealthStarting
}

// verdictOf is the verdict that is on disk, in the words of checks.
func verdictOf(h state.Health) health.State {
	switch h {
	case state.HealthPassing:
		return health.Healthy
	case state.HealthFailing:
		return health.Failing
	}
	return health.Starting
}

// apply takes what was registered, changed or gone. It returns the verdicts to state.
func (c *Checker) apply(now time.Duration, changes []source.Registered) (verdicts []source.Verdict) {
	for _, r := range changes {
		t := c.tasks[r.Ref]
		if r.Gone || len(r.Checks) == 0 {
			if t != nil {
				c.drop(t)
				if !r.Gone { // it had checks and has none: nothing stands against it
					verdicts = append(verdicts, source.Verdict{Ref: r.Ref, Health: state.HealthPassing})
				}
			}
			continue
		}
		if t == nil {
			t = &task{ref: r.Ref, stated: r.Endpoint.Health}
			c.tasks[r.Ref] = t
		}
		t.endpoint = r.Endpoint
		if !bytes.Equal(t.encoded, r.Checks) {
			c.define(now, t, r.Checks)
		}
		if v := t.verdict(); t.bad == "" && v != t.stated {
			t.stated = v
			verdicts = append(verdicts, source.Verdict{Ref: t.ref, Health: v})
		}
	}
	return verdicts
}

// drop forgets a task.
func (c *Checker) drop(t *task) {
	for _, e := range t.checks {
		c.scheduler.remove(e)
	}
	delete(c.tasks, t.ref)
}

// define gives a task its checks. Those that are as before go on; what is new begins with
// the verdict of the task, so that no change of a definition takes a task out (C4).
func (c *Checker) define(now time.Duration, t *task, encoded []byte) {
	checks, err := health.Decode(encoded)
	t.encoded, t.bad = bytes.Clone(encoded), ""
	if err != nil {
		t.bad = health.Clean(err.Error()) // kept as it is: a newer version may have written it
		checks = nil
	}
	before := map[string]*entry{}
	for _, e := range t.checks {
		before[string(health.Encode([]*health.Check{e.check}))] = e
	}
	t.checks = make([]*entry, 0, len(checks))
	for _, k := range checks {
		same := string(health.Encode([]*health.Check{k}))
		if e := before[same]; e != nil {
			delete(before, same)
			t.checks = append(t.checks, e)
			continue
		}
		e := &entry{task: t, check: k, tracker: health.ResumeTracker(k, verdictOf(t.stated), now)}
		c.scheduler.add(now, e)
		t.checks = append(t.checks, e)
	}
	for _, e := range before {
		c.scheduler.remove(e)
	}
}
