package notice

import "time"

// Bounds of what is said (N4). Status and metrics have the rest.
const (
	// Interval is how often at most a Condition is due, and a subject reported.
	Interval = time.Minute
	// LinesPerInterval is how many lines a Limiter lets through in an Interval.
	LinesPerInterval = 60
	// maxSubjects is how many subjects a SubjectLimiter remembers; it forgets all of
	// them when there are more.
	maxSubjects = 1024
)

// Limiter lets LinesPerInterval reports through in each Interval, and counts the
// others. The zero value is ready. It belongs to one goroutine.
type Limiter struct {
	since   time.Time // when the interval began
	used    int       // reports in the interval
	omitted int       // reports since the last one that was let through
}

// Do calls report, unless the interval has had its share, and reports whether it did.
// before is the number of reports that were omitted since the last one.
func (l *Limiter) Do(now time.Time, report func(before int)) bool {
	if l.since.IsZero() || now.Sub(l.since) >= Interval {
		l.since, l.used = now, 0
	}
	if l.used >= LinesPerInterval {
		l.omitted++
		return false
	}
	l.used++
	before := l.omitted
	l.omitted = 0
	report(before)
	return true
}

// SubjectLimiter lets one report through in each Interval for each subject, and of all
// subjects together as many as a Limiter does: whoever makes up subjects gets no line
// for each. The zero value is ready. It belongs to one goroutine.
type SubjectLimiter struct {
	last    map[string]time.Time // of the latest report, by subject; at most maxSubjects
	omitted map[string]int       // reports since then
	all     Limiter
}

// Do calls report unless that is too often. before is the number of reports on the
// subject that were omitted since its last one, and of others' that the limiter of all
// subjects omitted.
func (l *SubjectLimiter) Do(now time.Time, subject string, report func(before int)) {
	if l.last == nil || len(l.last) >= maxSubjects {
		l.last, l.omitted = map[string]time.Time{}, map[string]int{}
	}
	if last, ok := l.last[subject]; ok && now.Sub(last) < Interval {
		l.omitted[subject]++
		return
	}
	if l.all.Do(now, func(before int) { report(before + l.omitted[subject]) }) {
		l.last[subject], l.omitted[subject] = now, 0
	}
}

// Condition is a text that is reported when it changes, but at most once in an
// Interval, since others decide how often it does. The zero value has nothing to
// report. It belongs to one goroutine.
type Condition struct {
	Text string // as it is now; "": there is none

	reported string    // the text that was reported last
	at       time.Time // when that was
}

// Due reports whether the condition is to be reported now. The caller reports it then.
func (c *Condition) Due(now time.Time) bool {
	if c.Text == "" {
		c.reported = ""
	}
	if c.Text == c.reported || !c.at.IsZero() && now.Sub(c.at) < Interval {
		return false
	}
	c.reported, c.at = c.Text, now
	return true
}
