package health

import (
	"time"
)

// Outcome is what one run of a check, or one report, found.
type Outcome uint8

// The outcomes.
const (
	Passed  Outcome = iota // the task is well
	Warned                 // it is well enough: shown, and counts as passed
	Failed                 // it is not
	Unknown                // the check could not be run, which says nothing of the task
)

// String returns "passed", "warning", "failed" or "unknown".
func (o Outcome) String() string {
	return [...]string{"passed", "warning", "failed", "unknown"}[min(o, Unknown)]
}

// State is the verdict of one check, or of all checks of a task.
type State uint8

// The states, the worst last.
const (
	Healthy  State = iota // it is served
	Starting              // there is no verdict yet
	Failing               // it is not served while another one is healthy
)

// String returns "healthy", "starting" or "failing".
func (s State) String() string { return [...]string{"healthy", "starting", "failing"}[min(s, Failing)] }

// Result is what a run found, for people as well.
type Result struct {
	Outcome Outcome
	Output  string // what was answered, or why there was no answer; Clean has been at it
}

// Tracker is the verdict of one check as it follows from its answers (C2). It has no
// clock: now is monotonic, of any origin, and never less than before. It is not safe for
// concurrent use.
//
// A check that never passed in the life of its task is failing for people, and starting
// for everybody else: such a task is not served even if no other one is left (C3).
type Tracker struct {
	check *Check // fixed

	// What it follows from.

	began    time.Duration // of the check
	passes   int           // in a row
	fails    int           // in a row
	answered bool          // there was an answer in this life that says something
	held     time.Duration // until when the verdict of a former life counts; 0: there is none
	expires  time.Duration // of a heartbeat; 0: none is waited for
	known    time.Duration // when something was known last

	// What follows.

	state  State // for people
	passed bool  // it has been healthy in the life of the task
}

// NewTracker returns the tracker of a check of a new task.
func NewTracker(c *Check, now time.Duration) *Tracker {
	m := &Tracker{check: c, began: now, known: now, state: Starting}
	m.await(now)
	return m
}

// ResumeTracker returns the tracker of a check whose task had a verdict in a former life
// of the node, or before the check was changed. It stays until there is another one, for
// at most HoldFor without any answer (C4).
func ResumeTracker(c *Check, verdict State, now time.Duration) *Tracker {
	m := NewTracker(c, now)
	if verdict == Starting {
		return m
	}
	m.state, m.passed, m.held = verdict, true, now+c.HoldFor()
	return m
}

// await waits for the next heartbeat.
func (m *Tracker) await(now time.Duration) {
	if m.check.TTL > 0 {
		m.expires = now + m.check.TTL
	}
}

// State returns the verdict as people see it.
func (m *Tracker) State() State { return m.state }

// Effective returns the verdict as it is stated: a task that never passed is starting.
func (m *Tracker) Effective() State {
	if m.state == Failing && !m.passed {
		return Starting
	}
	return m.state
}

// Streak returns how many answers in a row said the same, and whether they were good.
func (m *Tracker) Streak() (n int, passes bool) { return max(m.passes, m.fails), m.passes > 0 }

// Step takes an answer and reports whether the verdict changed, either of the two.
func (m *Tracker) Step(now time.Duration, o Outcome) bool {
	before, effective := m.state, m.Effective()
	m.Expire(now)
	switch o {
	case Passed, Warned:
		m.pass(now)
	case Failed:
		m.fail(now)
	}
	return m.state != before || m.Effective() != effective
}

func (m *Tracker) pass(now time.Duration) {
	m.answer(now)
	m.await(now)
	m.passes, m.fails = m.passes+1, 0
	if m.state == Starting || !m.passed || m.passes >= m.check.Rise {
		m.state, m.passed = Healthy, true
	}
}

func (m *Tracker) fail(now time.Duration) {
	m.answer(now)
	m.expires = 0
	if m.state == Starting && now-m.began < m.check.StartPeriod {
		return
	}
	m.passes, m.fails = 0, m.fails+1
	if m.fails >= m.check.Fall {
		m.state = Failing
	}
}

// answer notes that something is known now.
func (m *Tracker) answer(now time.Duration) {
	m.answered, m.known, m.held = true, now, 0
}

// Expire takes note of the time, and reports whether the verdict changed: a heartbeat that
// did not come, a verdict of a former life that nothing confirmed.
func (m *Tracker) Expire(now time.Duration) bool {
	before := m.state
	if m.expires > 0 && now >= m.expires {
		m.expires, m.held = 0, 0
		m.passes, m.fails, m.state = 0, m.fails+1, Failing
	}
	if m.held > 0 && now >= m.held {
		m.held, m.state = 0, Starting
	}
	return m.state != before
}

// Deadline returns when Expire is to be called, if there is such a time.
func (m *Tracker) Deadline() (at time.Duration, ok bool) {
	switch {
	case m.expires > 0 && (m.held == 0 || m.expires < m.held):
		return m.expires, true
	case m.held > 0:
		return m.held, true
	}
	return 0, false
}

// Wait returns how long after the beginning of a run the next one begins.
func (m *Tracker) Wait() time.Duration {
	switch {
	case m.state == Starting || !m.passed && m.fails < 2*m.check.Fall:
		return m.check.StartInterval
	case m.state == Failing || m.fails > 0:
		return m.check.FailingInterval
	}
	return m.check.Interval
}

// Blind reports whether nothing has been known for three intervals: a condition of the
// node, since its checks cannot be run.
func (m *Tracker) Blind(now time.Duration) bool {
	return m.check.Interval > 0 && now-m.known >= 3*m.check.Interval
}

// Combine returns the verdict of a task from those of its checks: the worst. One without
// checks is healthy.
func Combine(all []State) State {
	worst := Healthy
	for _, s := range all {
		worst = max(worst, s)
	}
	return worst
}
