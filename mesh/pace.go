package mesh

import "time"

// What others do is told a bounded number of times, however often they do it
// (N4): status and metrics have the rest.

const (
	remindEvery = time.Minute
	maxReminded = 1024 // subjects; beyond, all are forgotten
	maxTold     = 60   // lines of one kind per remindEvery, over all subjects
)

// allowance lets maxTold lines a minute through, and counts the others. The zero
// value is ready; it belongs to one goroutine.
type allowance struct {
	since      time.Time // when the minute began
	used, more int
}

// tell calls tell with the number of lines before it that were not told, if it
// may, and reports whether it did.
func (a *allowance) tell(now time.Time, tell func(before int)) bool {
	if a.since.IsZero() || now.Sub(a.since) >= remindEvery {
		a.since, a.used = now, 0
	}
	if a.used >= maxTold {
		a.more++
		return false
	}
	a.used++
	before := a.more
	a.more = 0
	tell(before)
	return true
}

// reminder tells of one kind of thing at most once a minute for each subject,
// with how often it was not told, and of all subjects together as often as an
// allowance lets it: who makes up subjects gets no line for each. The zero value
// is ready; it belongs to one goroutine.
type reminder struct {
	last map[string]time.Time
	more map[string]int
	all  allowance
}

func (r *reminder) tell(now time.Time, subject string, tell func(before int)) {
	if r.last == nil || len(r.last) >= maxReminded {
		r.last, r.more = map[string]time.Time{}, map[string]int{}
	}
	if last, ok := r.last[subject]; ok && now.Sub(last) < remindEvery {
		r.more[subject]++
		return
	}
	if r.all.tell(now, func(before int) { tell(before + r.more[subject]) }) {
		r.last[subject], r.more[subject] = now, 0
	}
}

// paced is a condition that is told when it changes, but at most once a minute:
// others decide how often it does. The zero value has nothing to tell.
type paced struct {
	text string // as it is; "": there is none
	told string
	at   time.Time // when it was told last
}

// due reports whether the condition is to be told now.
func (p *paced) due(now time.Time) bool {
	if p.text == "" {
		p.told = ""
	}
	if p.text == p.told || !p.at.IsZero() && now.Sub(p.at) < remindEvery {
		return false
	}
	p.told, p.at = p.text, now
	return true
}
