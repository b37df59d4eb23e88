package lb

import (
	"strings"
	"time"
)

// How often and for how long a balancer asks for a namespace that another
// process has: as long as the end of a former life may take. Whoever still has
// it then does not end, and must find it as it was after a restart.
const (
	askAgain = 500 * time.Millisecond
	askFor   = 15 * time.Second
)

// mayProgram reports whether the kernel may be programmed; if not, it notes why,
// and when to ask again.
func (b *Balancer) mayProgram(now time.Time) bool {
	if len(b.cfg.Drivers) == 0 && (len(b.cfg.Former) == 0 || b.leaving.begun) {
		return true
	}
	err := b.cfg.MayProgram()
	if err == nil {
		return true
	}
	var names []string
	for _, d := range b.cfg.Drivers {
		names = append(names, d.Name())
	}
	b.driver, b.tried, b.refused = nil, len(names), []Refusal{{Driver: strings.Join(names, " and "), Reason: err.Error()}}
	b.count.Unsupported = true
	b.sayNone()
	if now.Before(b.started.Add(askFor)) {
		b.retryProbe(now, askAgain)
	}
	return false
}
