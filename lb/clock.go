package lb

import "time"

// alarm is something that the balancer does at a time.
type alarm int

const (
	alarmApply     alarm = iota // the changes have gathered
	alarmRetry                  // failed operations
	alarmVerify                 // compare with the kernel
	alarmPollRules              // look whether others wrote to it
	alarmDrain                  // look at draining backends
	alarmProbe                  // find or set up a driver
	alarmRetire                 // end what other drivers left
	alarmGrace                  // from now on everything may be removed
	alarms
)

// alarmClock holds at most one time per alarm. The zero value has none set.
type alarmClock struct{ due [alarms]time.Time }

// setNoLater makes the alarm go off at t or earlier. A zero t changes nothing.
func (c *alarmClock) setNoLater(a alarm, t time.Time) {
	if !t.IsZero() && (c.due[a].IsZero() || t.Before(c.due[a])) {
		c.due[a] = t
	}
}

// take reports whether the alarm is due, and clears it if so.
func (c *alarmClock) take(a alarm, now time.Time) bool {
	if c.due[a].IsZero() || now.Before(c.due[a]) {
		return false
	}
	c.due[a] = time.Time{}
	return true
}

// next returns the time of the earliest alarm, or the zero Time.
func (c *alarmClock) next() time.Time {
	var first time.Time
	for _, t := range c.due {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// arm sets a timer to the earliest alarm, or stops it.
func (c *alarmClock) arm(timer *time.Timer) {
	if next := c.next(); next.IsZero() {
		timer.Stop()
	} else {
		timer.Reset(time.Until(next))
	}
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// earliest returns the earlier of two times. A zero time is later than any other.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
