package lb

import (
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// repairCheck is what is known after a repair: it says which findings are repaired.
type repairCheck struct {
	again    []Finding     // of Driver.Check after the repair
	checkErr error         // of the same
	failed   map[Key]error // services with failed operations
	shadow   *Table        // what the kernel holds
	desired  *Table        // what it should hold
}

// mark sets Repaired and Note of findings, which it changes.
func (c repairCheck) mark(findings []Finding) {
	remaining := map[string]bool{}
	for _, f := range c.again {
		remaining[f.What] = true
	}
	for i := range findings {
		f := &findings[i]
		switch f.Area {
		case AreaService, AreaBackend:
			f.Repaired, f.Outcome = c.outcome(f)
		case AreaRoute:
			f.Repaired = c.checkErr == nil && !remaining[f.What]
			if f.Kind == FindingExtra && f.Repaired {
				f.Repaired = false
				f.Outcome = "adopted; it goes once the tables of all networks are complete and its services are gone"
			}
		default:
			f.Repaired = c.checkErr == nil && !remaining[f.What]
		}
		if !f.Repaired && f.Outcome == "" && c.checkErr != nil {
			f.Outcome = c.checkErr.Error()
		}
	}
}

// outcome says what became of a finding about a service or a backend.
func (c repairCheck) outcome(f *Finding) (repaired bool, note string) {
	if err := c.failed[f.key]; err != nil {
		return false, err.Error()
	}
	have, want := c.shadow.Services[f.key], c.desired.Services[f.key]
	switch {
	case f.Kind == FindingExtra && f.Area == AreaService && have != nil:
		return have.closing(), "it goes when its connections have ended"
	case f.Kind != FindingExtra || have == nil:
		if f.Area == AreaService && want == nil {
			return true, "it was on its way out"
		}
		return true, ""
	}
	if left, there := have.Backend(f.backend); there && !want.hasBackend(f.backend) {
		return left.Weight == 0, "it goes when its connections have ended"
	}
	return true, ""
}

// loggedFindings bounds a log line.
const loggedFindings = 5

// reportLog keeps the reports that readers ask for, and tells operators what
// somebody else changed, unless that happens without end. It belongs to the
// balancer's goroutine but for last and drifted, which anybody may load.
type reportLog struct {
	onDrift func(Report) // Config.OnDrift
	log     *slog.Logger

	last    atomic.Pointer[Report] // the latest comparison with the kernel; nil before the first
	drifted atomic.Pointer[Report] // the latest that found something; nil if none did
	pace    reportPace
}

// add keeps a report, of which it shortens the list of findings, and tells
// operators what was found.
func (l *reportLog) add(r *Report) {
	if n := len(r.Findings); n > maxFindings {
		r.More, r.Findings = n-maxFindings, r.Findings[:maxFindings]
	}
	filed := *r
	l.last.Store(&filed)
	if len(r.Findings) == 0 {
		return
	}
	l.drifted.Store(&filed)
	unreported, allowed := l.pace.take(r.At)
	if !allowed {
		return
	}
	var first []string
	for _, f := range r.Findings[:min(len(r.Findings), loggedFindings)] {
		first = append(first, f.String())
	}
	repaired := len(slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return !f.Repaired }))
	l.log.Warn("load balancing was changed by someone else",
		slog.Int("differences", len(r.Findings)+r.More), slog.Int("repaired", repaired), slog.Any("first", first),
		slog.Int("unreported", unreported))
	l.onDrift(filed)
}

// The bounds of reportPace.
const (
	reportBurst = 10               // reports in a row
	reportEvery = 30 * time.Second // and then one
)

// reportPace bounds how often operators are told what others changed, since a
// program that removes our rules in a loop would fill the log.
type reportPace struct {
	until      time.Time // by then all reports so far have been paid for
	unreported int       // reports since the last one that was allowed
}

// take reports whether operators are to be told now, and how many reports they
// were not told of before.
func (p *reportPace) take(now time.Time) (unreported int, allowed bool) {
	if p.until.Before(now) {
		p.until = now
	}
	if p.until.Sub(now) > (reportBurst-1)*reportEvery {
		p.unreported++
		return p.unreported, false
	}
	unreported, p.unreported = p.unreported, 0
	p.until = p.until.Add(reportEvery)
	return unreported, true
}
