//go:build linux

package chaos

import (
	"sync"
	"time"
)

// How long the consequences of a fault may be felt.
const (
	detection = 6 * time.Second        // until a host that is cut off is given up by the others
	spreading = time.Second            // until a change is known everywhere in a healthy fleet
	recovery  = 5 * time.Second        // until a change made during a fault is known everywhere after it
	returning = 3 * time.Second        // until a host that is back is known to be back
	starting  = 500 * time.Millisecond // from the control API's first answer to that of DNS
	warming   = 2 * time.Second        // from there until VIPs are answered with again
)

// span is a time in which something was wrong.
type span struct {
	why      string
	from, to time.Time // to is zero while it lasts
}

func (s span) overlaps(from, to time.Time) bool {
	return s.from.Before(to) && (s.to.IsZero() || s.to.After(from))
}

// outage is a span in which a host's daemon did not run, or was stopped.
type outage struct {
	span
	host int
}

// badLink is a span in which two hosts did not reach each other as usual.
type badLink struct {
	span
	a, b    int
	tcp     bool // TCP suffers
	noticed bool // a must learn in due time that b is gone; says nothing of b
}

func (l badLink) touches(host int) bool { return l.a == host || l.b == host }

// timeline is the record of what was wrong when. It is safe for concurrent use.
type timeline struct {
	mu      sync.Mutex // guards everything that follows
	outages []*outage
	links   []*badLink
}

func (l *timeline) down(host int, why string) *outage {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := &outage{span{why: why, from: time.Now()}, host}
	l.outages = append(l.outages, o)
	return o
}

func (l *timeline) bad(link badLink) *badLink {
	l.mu.Lock()
	defer l.mu.Unlock()
	link.from = time.Now()
	l.links = append(l.links, &link)
	return &link
}

// end ends a span of the timeline.
func (l *timeline) end(s *span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.to = time.Now()
}

// outageOf returns why the host's daemon could not answer, or "".
func (l *timeline) outageOf(host int, from, to time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.outages {
		if o.host == host && o.overlaps(from.Add(-starting), to) {
			return o.why
		}
	}
	return ""
}

// away reports whether a host seems gone to another: its daemon is down, or
// the link to it is bad, or was so until a moment ago.
func (l *timeline) away(from, host int, begin, end time.Time) bool {
	begin = begin.Add(-returning)
	return l.outageOf(host, begin, end) != "" || l.link(from, host, begin, end, false) != ""
}

// link returns why TCP from one host to another could fail, or "". With
// noticed, the other side of a complete cut is known to be gone in due time,
// after which the cut explains nothing.
func (l *timeline) link(a, b int, from, to time.Time, noticed bool) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.links {
		if !s.tcp || !s.touches(a) || !s.touches(b) || a == b || !s.overlaps(from, to) {
			continue
		}
		if s.noticed && (s.a != a || noticed && from.After(s.from.Add(detection))) {
			continue
		}
		return s.why
	}
	return ""
}

// mayBeStale reports whether the client's host may not know at a time what
// happened on the owner's host at another, and why.
func (l *timeline) mayBeStale(client, owner int, happened, at time.Time) string {
	if at.Before(happened.Add(spreading)) {
		return "just now"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	stale := func(s span) bool {
		return s.overlaps(happened.Add(-spreading), happened.Add(spreading)) &&
			(s.to.IsZero() || at.Before(s.to.Add(recovery)))
	}
	for _, o := range l.outages {
		if (o.host == client || o.host == owner) && stale(o.span) {
			return o.why
		}
	}
	for _, s := range l.links {
		if (s.touches(client) || s.touches(owner)) && stale(s.span) {
			return s.why
		}
	}
	return ""
}
