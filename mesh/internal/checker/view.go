package checker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"meshd/mesh/health"
	"meshd/mesh/source"
)

// Status is one check as it stands, for people.
type Status struct {
	Ref     source.Ref    // the task
	Service string        // its service
	Check   *health.Check // not to be changed

	State     health.State  // the verdict
	Effective health.State  // as it is stated
	Since     time.Duration // how long it has been so
	Streak    int           // answers in a row that say the same
	Blind     bool          // nothing is known for three intervals

	Last     health.Result // of the last run or report
	Age      time.Duration // of it; negative: there was none
	Took     time.Duration // how long the run was
	Next     time.Duration // until the next run; negative: it is not run
	Running  bool          // a run goes on, or waits for its turn
	Runs     uint64        // runs and reports since the start
	Overruns uint64        // runs that were left out since one still went on
}

// Stats counts what the checks have done since the start, and what there is.
type Stats struct {
	Tasks, Checks int                        // that there are
	States        [health.Failing + 1]int    // checks in each state
	Blind         int                        // checks of which nothing is known for three intervals
	Running       int                        // runs that go on
	Waiting       int                        // runs that wait for their pool
	Results       [health.Unknown + 1]uint64 // of runs and reports
	Overruns      uint64                     // runs that were left out since one still went on
	Starved       uint64                     // intervals in which a check waited for its pool
	Stated        uint64                     // verdicts
	Failures      uint64                     // to state verdicts
}

// Checks returns the checks of all tasks, or of one by its id, sorted by network, task and place.
func (c *Checker) Checks(ctx context.Context, id string) (all []Status, err error) {
	err = c.ask(ctx, func() {
		now := c.cfg.Now()
		for _, t := range c.tasks {
			if id != "" && t.ref.ID != id {
				continue
			}
			for _, e := range t.checks {
				all = append(all, status(now, e))
			}
		}
	})
	slices.SortStableFunc(all, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Ref.Network, b.Ref.Network), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Ref.ID, b.Ref.ID))
	})
	return all, err
}

func status(now time.Duration, e *entry) Status {
	streak, _ := e.tracker.Streak()
	s := Status{
		Ref: e.task.ref, Service: e.task.endpoint.Service, Check: e.check, State: e.tracker.State(),
		Effective: e.tracker.Effective(), Since: now - e.changed, Streak: streak, Blind: e.tracker.Blind(now),
		Last: e.last, Age: -1, Took: e.took, Next: -1, Running: e.running || e.waiting, Runs: e.runs, Overruns: e.overruns,
	}
	if e.runs > 0 || e.last.Output != "" {
		s.Age = now - e.lastAt
	}
	if !e.check.Reported() {
		s.Next = max(0, e.run-now)
	}
	return s
}

// Errors of Report.
var (
	ErrNoCheck    = errors.New("no such check")
	ErrNoReport   = errors.New("the check is run by this node")
	ErrManyChecks = errors.New("several checks are meant")
)

// Report hands in the answer of a check that is not run: a heartbeat, what a container
// engine found. An empty name stands for the only such check of the task, an empty
// network for the one that has the task. The verdict follows before it returns.
func (c *Checker) Report(ctx context.Context, ref source.Ref, name string, r health.Result) error {
	r.Output = health.Clean(r.Output)
	var err error
	asked := c.ask(ctx, func() {
		var e *entry
		if e, err = c.reported(ref, name); err == nil {
			c.scheduler.report(c.cfg.Now(), e, r)
		}
	})
	return cmp.Or(asked, err)
}

// reported finds the check that a report is about.
func (c *Checker) reported(ref source.Ref, name string) (found *entry, err error) {
	run := false
	for _, t := range c.tasks {
		if t.ref.ID != ref.ID || ref.Network != "" && t.ref.Network != ref.Network {
			continue
		}
		for _, e := range t.checks {
			switch {
			case name != "" && e.check.Definition.Name != name:
			case !e.check.Reported():
				run = true
			case found != nil:
				return nil, ErrManyChecks
			default:
				found = e
			}
		}
	}
	switch {
	case found != nil:
		return found, nil
	case run:
		return nil, ErrNoReport
	}
	return nil, ErrNoCheck
}

// Stats returns the counters.
func (c *Checker) Stats(ctx context.Context) (s Stats, err error) {
	err = c.ask(ctx, func() {
		now := c.cfg.Now()
		s = c.scheduler.stats
		s.Tasks = len(c.tasks)
		for _, t := range c.tasks {
			for _, e := range t.checks {
				s.Checks++
				s.States[e.tracker.State()]++
				if e.tracker.Blind(now) {
					s.Blind++
				}
			}
		}
		for _, p := range c.scheduler.pools {
			s.Running += p.busy
			s.Waiting += len(p.queue)
		}
	})
	s.Stated, s.Failures = c.out.stated.Load(), c.out.failures.Load()
	return s, err
}

// Conditions says what is wrong with the checks of this node, for people: what cannot be
// read, and what could not be asked for three intervals (C5). Each names the first few.
func (c *Checker) Conditions(ctx context.Context) (texts []string, err error) {
	var blind, bad []string
	err = c.ask(ctx, func() {
		now := c.cfg.Now()
		for _, t := range c.tasks {
			if t.bad != "" {
				bad = append(bad, fmt.Sprintf("%s (%s)", t.ref.ID, t.bad))
			}
			for _, e := range t.checks {
				if e.tracker.Blind(now) {
					blind = append(blind,
						fmt.Sprintf("%s of task %s (%s)", e.check.Definition.Name, t.ref.ID, firstLine(e.last.Output)))
				}
			}
		}
	})
	for what, names := range map[string][]string{
		"health checks could not be made for three intervals, so the verdicts stay as they were": blind,
		"checks of tasks cannot be read, so the verdicts stay as they were":                      bad,
	} {
		if len(names) > 0 {
			slices.Sort(names)
			texts = append(texts, what+": "+first(names))
		}
	}
	slices.Sort(texts)
	return texts, err
}

// first names the first few, and says how many more there are.
func first(names []string) string {
	const few = 3
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// firstLine is the beginning of an output.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	if len(line) > 120 {
		line = strings.ToValidUTF8(line[:120], "") + "…"
	}
	return line
}
