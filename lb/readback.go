package lb

import "time"

// readbackShare bounds the time spent on reading services back to one part in so
// many: it takes long for large tables, and changes wait meanwhile.
const readbackShare = 50

// readbackPace says when the services are read back from the kernel, besides the
// check of what is beside them. It belongs to the balancer's goroutine.
type readbackPace struct {
	every time.Duration // Config.Audit: at the latest, even if the kernel says that nothing changed

	suspected bool      // services are not as they were left: read them back at the next comparison
	last      time.Time // when they were last read back; zero: never
	notBefore time.Time // no readback before, as the last one took long
}

// due reports whether services are to be read back whatever the kernel says.
func (p *readbackPace) due(now time.Time) bool {
	return p.suspected || !now.Before(p.last.Add(p.every))
}

// resting reports whether the last readback took so long that none may follow yet.
func (p *readbackPace) resting(now time.Time) bool { return now.Before(p.notBefore) }

// suspect has services read back at the next comparison, however long the last
// readback took.
func (p *readbackPace) suspect(now time.Time) { p.suspected, p.notBefore = true, now }

// done plans the next readback after one that began at start.
func (p *readbackPace) done(start time.Time, took time.Duration) {
	p.last = start
	p.notBefore = start.Add(readbackShare * took)
}
