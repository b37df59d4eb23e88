package lb

import "time"

// triggers say when the kernel is to be compared because somebody else may have
// changed it: that is announced to the balancer, or noticed by the number of the
// ruleset as long as nobody announces changes of the rules (L15).
type triggers struct {
	raised    bool      // something was announced (Config.Touched, Config.Heard) and not compared yet
	notBefore time.Time // no comparison because of others before
}

// raise records that somebody may have changed what is ours, and returns when to
// compare.
func (a *triggers) raise(now time.Time) (at time.Time) {
	a.raised = true
	return later(now, a.notBefore)
}

// take reports whether to compare now, because of an announcement or because
// othersWrote says so; and if not, when to ask again, or the zero Time.
func (a *triggers) take(now time.Time, othersWrote func() bool) (compare bool, again time.Time) {
	if now.Before(a.notBefore) {
		if a.raised {
			again = a.notBefore
		}
		return false, again
	}
	if !a.raised && !othersWrote() {
		return false, time.Time{}
	}
	a.raised = false
	return true, time.Time{}
}

// restUntil allows no comparison because of others before t.
func (a *triggers) restUntil(t time.Time) { a.notBefore = t }
