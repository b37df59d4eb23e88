package lookout

import (
	"slices"
	"time"

	"meshd/lb/hostcheck"
	"meshd/mesh/control"
	"meshd/mesh/internal/notice"
)

// How often a finding of one code is reported to come or go: whoever loads a firewall
// each second gets no line each second.
const (
	maxReported = 8 // findings of one code at once
	maxChanges  = 8 // changes of one code per notice.Interval
)

// reporter remembers what was reported. Whoever looks owns it.
type reporter struct {
	byCode map[hostcheck.Code]*codeReports
	fixes  notice.SubjectLimiter
}

// codeReports is what was reported of one code.
type codeReports struct {
	findings []hostcheck.Finding
	since    time.Time // when the changes that are counted began
	changes  int       // since then
}

// mayChange reports whether one more change may be reported, and counts it.
func (r *codeReports) mayChange(now time.Time) bool {
	if now.Sub(r.since) >= notice.Interval {
		r.since, r.changes = now, 0
	}
	r.changes++
	return r.changes <= maxChanges
}

// change returns what is to be reported of a code now: the findings that are new, and
// whether there are none any more. Findings that come and go too often are reported
// later, as they are then.
func (r *reporter) change(now time.Time, code hostcheck.Code, found []hostcheck.Finding) (fresh []hostcheck.Finding,
	gone bool,
) {
	c := r.byCode[code]
	if c == nil {
		c = &codeReports{}
		r.byCode[code] = c
	}
	was := c.findings
	for _, f := range found {
		if !slices.ContainsFunc(was, func(o hostcheck.Finding) bool { return sameFinding(f, o) }) {
			fresh = append(fresh, f)
		}
	}
	gone = len(found) == 0 && len(was) > 0
	if len(fresh) == 0 && !gone {
		if len(found) < len(was) { // some of them are gone: what comes back is new
			c.findings = found
		}
		return nil, false
	}
	if !c.mayChange(now) {
		return nil, false
	}
	c.findings = found
	return fresh, gone
}

// report logs and emits the findings that are new, and codes of which there are none any
// more.
func (l *Lookout) report(now time.Time, found []hostcheck.Finding) {
	for _, code := range hostcheck.Codes() {
		of := slices.DeleteFunc(slices.Clone(found), func(f hostcheck.Finding) bool { return f.Code != code })
		fresh, gone := l.reports.change(now, code, of)
		for _, f := range fresh[:min(len(fresh), maxReported)] {
			l.cfg.Log.Warn("something of the host is against meshd",
				"code", string(f.Code), "what", f.What, "command", f.Command)
			l.cfg.Emit(control.Event{Type: control.EventHostFound, Detail: string(f.Code) + ": " + f.String()})
		}
		if gone {
			l.cfg.Log.Info("the host is not against it any more", "code", string(code))
			l.cfg.Emit(control.Event{Type: control.EventHostMended, Detail: string(code)})
		}
	}
}

// sameFinding reports whether two findings of two looks are one that goes on: figures in
// its text may be others by now.
func sameFinding(a, b hostcheck.Finding) bool {
	return a.Code == b.Code && a.Command == b.Command && (a.Command != "" || a.What == b.What)
}

// Report returns findings as the API has them.
func Report(found []hostcheck.Finding) control.Doctor {
	d := control.Doctor{At: time.Now(), Findings: []control.HostFinding{}}
	for _, f := range found {
		d.Findings = append(d.Findings, control.HostFinding{
			Code: string(f.Code), Severity: string(f.Severity), What: f.What,
			Command: f.Command, Document: f.Document,
		})
	}
	return d
}
