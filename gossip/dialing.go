package gossip

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// What answers and waits to be dialled is bounded, in all and at one address:
// what is over it is wanted again a second later.
const (
	maxWanted      = 1024
	maxWantedOfOne = 64
)

// addWanted notes that an address is wanted, if there is room: one host that answers
// on a thousand ports as a thousand names leaves room for others. The caller
// holds mu.
func (j *joiner) addWanted(id state.NodeID, a netip.AddrPort) {
	if _, known := j.wanted[a]; !known {
		if len(j.wanted) >= maxWanted || j.wantedByAddr[a.Addr()] >= maxWantedOfOne {
			return
		}
		j.wantedByAddr[a.Addr()]++
	}
	j.wanted[a] = id
}

// removeWanted forgets that an address is wanted. The caller holds mu.
func (j *joiner) removeWanted(a netip.AddrPort) {
	delete(j.wanted, a)
	decrement(j.wantedByAddr, a.Addr())
}

// decrement counts one down, and forgets who has none left.
func decrement(counts map[netip.Addr]int, a netip.Addr) {
	if counts[a]--; counts[a] == 0 {
		delete(counts, a)
	}
}

// dueDials returns what to dial now and notes that it is: those that answer but are
// not listed, then, as far as their pace allows, missing peers and seeds, in
// random order; and in how long one that answers may be dialled that had to wait.
func (j *joiner) dueDials(now time.Time) (due []dialRequest, again time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	listed := map[string]bool{j.h.Addr().String(): true}
	for _, a := range j.listed {
		listed[a.String()] = true
	}
	due, again = j.dueWanted(listed, now)
	missing := j.missingAddrs(listed, now)
	rand.Shuffle(len(missing), func(a, b int) { missing[a], missing[b] = missing[b], missing[a] })
	for _, a := range missing {
		if j.searchDials < rejoinWidth && j.startDial(a, now, func(t *attempt) bool { return !now.Before(t.next) }) {
			j.searchDials++
			due = append(due, dialRequest{addr: a})
		}
	}
	j.pruneAttempts(now)
	return due, again
}

// dueWanted is due for those that answer. The caller holds mu.
func (j *joiner) dueWanted(listed map[string]bool, now time.Time) (due []dialRequest, again time.Duration) {
	again = rejoinInterval
	for a, id := range j.wanted {
		if id != "" && j.listed[id] == a || id == "" && listed[a.String()] || a == j.h.Addr() {
			j.removeWanted(a)
			continue
		}
		if j.wantedDials >= wantedWidth || j.dialsByAddr[a.Addr()] >= wantedShare {
			continue // the end of a dial wakes us
		}
		if j.startDial(a.String(), now, func(t *attempt) bool { return now.Sub(t.last) >= rejoinWant }) {
			j.removeWanted(a)
			j.wantedDials++
			j.dialsByAddr[a.Addr()]++
			due = append(due, dialRequest{id, a.String(), a.Addr()})
		} else if t := j.attempts[a.String()]; !t.running {
			again = min(again, max(rejoinWant-now.Sub(t.last), time.Millisecond))
		}
	}
	return due, again
}

// startDial notes that an address is dialled, unless it is already or must wait.
func (j *joiner) startDial(a string, now time.Time, ready func(t *attempt) bool) bool {
	t := j.attempts[a]
	if t == nil {
		t = &attempt{}
		j.attempts[a] = t
	}
	if t.running || !t.last.IsZero() && !ready(t) {
		return false
	}
	t.running, t.last = true, now
	return true
}

// releaseSlot gives back what a dial that has ended took. The caller holds mu.
func (j *joiner) releaseSlot(d dialRequest) {
	if !d.from.IsValid() {
		j.searchDials--
		return
	}
	j.wantedDials--
	decrement(j.dialsByAddr, d.from)
}

// missingAddrs lists the peers and seeds that are not listed, and forgets peers that
// were not seen for very long.
func (j *joiner) missingAddrs(listed map[string]bool, now time.Time) []string {
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

// pruneAttempts keeps what is known of attempts bounded: by then it would not slow a
// new one anyway.
func (j *joiner) pruneAttempts(now time.Time) {
	for a, t := range j.attempts {
		if !t.running && now.Sub(t.next) > 2*rejoinMax && now.Sub(t.last) > 2*rejoinMax {
			delete(j.attempts, a)
		}
	}
}
