package gossip

import (
	"math/rand/v2"
	"slices"
	"time"
)

// due returns what to dial now and notes that it is: those that answer but are
// not listed, then, as far as their pace allows, missing peers and seeds, in
// random order; and in how long one that answers may be dialled that had to wait.
func (j *joiner) due(now time.Time) (due []dial, again time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	listed := map[string]bool{j.h.Addr().String(): true}
	for _, a := range j.listed {
		listed[a.String()] = true
	}
	due, again = j.dueWanted(listed, now)
	missing := j.missing(listed, now)
	rand.Shuffle(len(missing), func(a, b int) { missing[a], missing[b] = missing[b], missing[a] })
	for _, a := range missing {
		if j.dialing < rejoinWidth && j.start(a, now, func(t *attempt) bool { return !now.Before(t.next) }) {
			due = append(due, dial{addr: a})
		}
	}
	j.prune(now)
	return due, again
}

// dueWanted is due for those that answer. The caller holds mu.
func (j *joiner) dueWanted(listed map[string]bool, now time.Time) (due []dial, again time.Duration) {
	again = rejoinEvery
	for a, id := range j.wanted {
		if id != "" && j.listed[id] == a || id == "" && listed[a.String()] || a == j.h.Addr() {
			delete(j.wanted, a)
			continue
		}
		if j.dialing >= 2*rejoinWidth {
			continue // the end of a dial wakes us
		}
		if j.start(a.String(), now, func(t *attempt) bool { return now.Sub(t.last) >= rejoinWant }) {
			delete(j.wanted, a)
			due = append(due, dial{id, a.String()})
		} else if t := j.tries[a.String()]; !t.running {
			again = min(again, max(rejoinWant-now.Sub(t.last), time.Millisecond))
		}
	}
	return due, again
}

// start notes that an address is dialled, unless it is already or must wait.
func (j *joiner) start(a string, now time.Time, ready func(t *attempt) bool) bool {
	t := j.tries[a]
	if t == nil {
		t = &attempt{}
		j.tries[a] = t
	}
	if t.running || !t.last.IsZero() && !ready(t) {
		return false
	}
	t.running, t.last = true, now
	j.dialing++
	return true
}

// missing lists the peers and seeds that are not listed, and forgets peers that
// were not seen for very long.
func (j *joiner) missing(listed map[string]bool, now time.Time) []string {
	var todo []string
	for id, p := range j.peers {
		switch {
		case listed[p.Addr.String()]:
		case now.Sub(p.Seen) > peerMemory:
			delete(j.peers, id)
			j.dirty = true
		default:
			todo = append(todo, p.Addr.String())
		}
	}
	for _, s := range j.h.cfg.Join {
		if !listed[s] && !slices.Contains(todo, s) {
			todo = append(todo, s)
		}
	}
	return todo
}

// prune keeps what is known of attempts bounded: by then it would not slow a
// new one anyway.
func (j *joiner) prune(now time.Time) {
	for a, t := range j.tries {
		if !t.running && now.Sub(t.next) > 2*rejoinMax && now.Sub(t.last) > 2*rejoinMax {
			delete(j.tries, a)
		}
	}
}
