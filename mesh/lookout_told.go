package mesh

import (
	"slices"
	"time"

	"meshd/lb/hostcheck"
	"meshd/mesh/control"
	"meshd/mesh/notice"
)

// How often is told of one code that it is found, or not any more: whoever loads a
// firewall each second gets no line each second.
const (
	toldFound   = 8 // findings of one code at once
	toldChanges = 8 // per remindEvery
)

// hostTeller tells of what is against the node when it changes. It belongs to whoever
// looks at the host.
type hostTeller struct {
	found  map[hostcheck.Code]*toldCode
	mended notice.SubjectLimiter
}

// toldCode is what was told of one code.
type toldCode struct {
	told  []hostcheck.Finding
	since time.Time // when the changes that are counted began
	used  int
}

// may reports whether one more change may be told, and counts it.
func (t *toldCode) may(now time.Time) bool {
	if now.Sub(t.since) >= notice.Interval {
		t.since, t.used = now, 0
	}
	t.used++
	return t.used <= toldChanges
}

// change returns what is to be told of a code now: what of it is new, and whether it
// has come or gone at all. What comes and goes too often is told later, as it is then.
func (t *hostTeller) change(now time.Time, code hostcheck.Code, found []hostcheck.Finding) (fresh []hostcheck.Finding,
	gone bool,
) {
	c := t.found[code]
	if c == nil {
		c = &toldCode{}
		t.found[code] = c
	}
	was := c.told
	for _, f := range found {
		if !slices.ContainsFunc(was, func(o hostcheck.Finding) bool { return goesOn(f, o) }) {
			fresh = append(fresh, f)
		}
	}
	gone = len(found) == 0 && len(was) > 0
	if len(fresh) == 0 && !gone {
		if len(found) < len(was) { // some of them: what comes back is news
			c.told = found
		}
		return nil, false
	}
	if !c.may(now) {
		return nil, false
	}
	c.told = found
	return fresh, gone
}

// tellFound tells of what was not found before, and of what is not any more.
func (n *Node) tellFound(now time.Time, found []hostcheck.Finding) {
	t := &n.lookout.told
	if t.found == nil {
		t.found = map[hostcheck.Code]*toldCode{}
	}
	for _, code := range hostcheck.Codes() {
		of := slices.DeleteFunc(slices.Clone(found), func(f hostcheck.Finding) bool { return f.Code != code })
		fresh, gone := t.change(now, code, of)
		for _, f := range fresh[:min(len(fresh), toldFound)] {
			n.log.Warn("the host is against it", "code", string(f.Code), "what", f.What, "command", f.Command)
			n.emit(control.Event{Type: control.EventHostFound, Detail: string(f.Code) + ": " + f.String()})
		}
		if gone {
			n.log.Info("the host is not against it any more", "code", string(code))
			n.emit(control.Event{Type: control.EventHostMended, Detail: string(code)})
		}
	}
}

// goesOn reports whether two findings are one that goes on: figures in its text may
// be others meanwhile.
func goesOn(a, b hostcheck.Finding) bool {
	return a.Code == b.Code && a.Command == b.Command && (a.Command != "" || a.What == b.What)
}

// tellMended counts something that the node has changed of its host, and tells of it
// at most once a minute: others may undo it each second.
func (n *Node) tellMended(subject string, tell func(before int)) {
	l := n.lookout
	l.mu.Lock()
	l.count.mended++
	l.mu.Unlock()
	l.told.mended.Do(time.Now(), subject, tell)
}
