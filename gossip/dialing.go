package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/state"
)

// This file owns when the joiner dials which address, and what it learns from the
// result.

// The pace of the reconnect loop: a missing peer is dialled every few seconds at first,
// then more and more rarely, but at least twice a minute. One that answers the core's
// pings is joined at once.
const (
	rejoinInterval = time.Second
	rejoinMin      = 2 * time.Second
	rejoinMax      = 30 * time.Second
	rejoinWanted   = 200 * time.Millisecond // between joins of a wanted address, at least

	// After a join that did not list the node: the membership is about to find out that
	// the node's old address is dead.

	unlistedRetry      = 300 * time.Millisecond
	maxUnlistedRetries = 8

	// How many addresses are dialled at once.

	searchWidth = 4                      // peers and seeds,
	searchPace  = 500 * time.Millisecond // and that often, once half of them are listed
	largeBook   = 64                     // of so many peers or more
	wantedWidth = 8                      // wanted addresses,
	wantedShare = 2                      // and of those at one host
)

// Bounds of the wanted addresses, in all and at one host. What is over them is wanted
// again a second later.
const (
	maxWanted      = 1024
	maxWantedOfOne = 64
)

// attempt is what is remembered of dialling one address.
type attempt struct {
	last     time.Time // when the last dial began, or ended
	next     time.Time // when the next one may begin
	delay    time.Duration
	running  bool
	reported bool  // it was logged that it failed
	err      error // of the last dial that ended
	unlisted int   // dials in a row that succeeded, but did not list the node
}

// dialRequest is an address to be joined.
type dialRequest struct {
	id   state.NodeID // who should be listed there afterwards; "": some node
	addr string
	from netip.Addr // the host whose share it takes; invalid: it is a peer or a seed
}

// addWanted adds a wanted address, if there is room: one host that answers on a thousand
// ports as a thousand names leaves room for others. It is not dialled before patience is
// over; one that is wanted already, by the same name, waits no longer than it did. The
// caller holds mu.
func (j *joiner) addWanted(id state.NodeID, a netip.AddrPort, patience time.Duration) (added bool) {
	w, known := j.wanted[a]
	if !known {
		if len(j.wanted) >= maxWanted || j.wantedByAddr[a.Addr()] >= maxWantedOfOne {
			return false
		}
		j.wantedByAddr[a.Addr()]++
	}
	if !known || w.id != id {
		w = wish{id: id}
		if patience > 0 {
			w.after = time.Now().Add(patience)
		}
	}
	j.wanted[a] = w
	return true
}

// removeWanted removes a wanted address. The caller holds mu.
func (j *joiner) removeWanted(a netip.AddrPort) {
	delete(j.wanted, a)
	decrement(j.wantedByAddr, a.Addr())
}

// decrement lowers a count by one and removes it at zero.
func decrement(counts map[netip.Addr]int, a netip.Addr) {
	if counts[a]--; counts[a] == 0 {
		delete(counts, a)
	}
}

// dueDials returns what to dial now, and marks it as running: wanted addresses first,
// then, as far as their pace allows, missing peers and seeds in random order. again is in
// how long a wanted address may be dialled that had to wait.
func (j *joiner) dueDials(now time.Time) (due []dialRequest, again time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	due, again = j.dueWanted(now)
	missing := j.missingAddrs(now)
	rand.Shuffle(len(missing), func(a, b int) { missing[a], missing[b] = missing[b], missing[a] })
	for _, a := range missing {
		if j.searchDials < searchWidth && j.maySearch(now) &&
			j.startDial(a, now, func(t *attempt) bool { return !now.Before(t.next) }) {
			j.searchDials++
			j.searchAt = latest(now, j.searchAt).Add(searchPace)
			due = append(due, dialRequest{addr: a})
		}
	}
	j.pruneAttempts(now)
	return due, again
}

// maySearch reports whether one more peer or seed may be dialled. Each join exchanges
// the whole membership, so a node that lists half of those whom it remembers, and will
// hear of the others from those, dials two a second. The caller holds mu.
func (j *joiner) maySearch(now time.Time) bool {
	if len(j.peers) < largeBook || 2*len(j.listed) < len(j.peers) {
		return true
	}
	return !now.Before(j.searchAt.Add(-searchPace))
}

// latest returns the later of two times.
func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// dueWanted is dueDials for wanted addresses. The caller holds mu.
func (j *joiner) dueWanted(now time.Time) (due []dialRequest, again time.Duration) {
	again = rejoinInterval
	for a, w := range j.wanted {
		id := w.id
		if id != "" && j.listed[id] == a || id == "" && j.isTaken(a) || a == j.addr {
			j.removeWanted(a)
			continue
		}
		if wait := w.after.Sub(now); wait > 0 {
			again = min(again, wait)
			continue
		}
		if j.wantedDials >= wantedWidth || j.dialsByAddr[a.Addr()] >= wantedShare {
			continue // the end of a dial wakes the loop up
		}
		if j.startDial(a.String(), now, func(t *attempt) bool { return now.Sub(t.last) >= rejoinWanted }) {
			j.removeWanted(a)
			j.wantedDials++
			j.dialsByAddr[a.Addr()]++
			due = append(due, dialRequest{id, a.String(), a.Addr()})
		} else if t := j.attempts[a.String()]; !t.running {
			again = min(again, max(rejoinWanted-now.Sub(t.last), time.Millisecond))
		}
	}
	return due, again
}

// startDial marks an address as being dialled, unless it is already or must wait. The
// caller holds mu.
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

// releaseSlot gives back what a dial took of the widths. The caller holds mu.
func (j *joiner) releaseSlot(d dialRequest) {
	if !d.from.IsValid() {
		j.searchDials--
		return
	}
	j.wantedDials--
	decrement(j.dialsByAddr, d.from)
}

// isTaken reports whether this node is at an address, or one that the membership lists.
// The caller holds mu.
func (j *joiner) isTaken(a netip.AddrPort) bool { return a == j.addr || j.taken[a] > 0 }

// missingAddrs returns the addresses of peers and seeds that are not listed, and forgets
// peers that were not seen for very long. The caller holds mu.
func (j *joiner) missingAddrs(now time.Time) []string {
	var todo []string
	for id, p := range j.peers {
		switch {
		case j.isTaken(p.Addr):
		case now.Sub(p.Seen) > peerMemory:
			j.dropPeer(id)
		default:
			todo = append(todo, p.Addr.String())
		}
	}
	for _, s := range j.seeds {
		if a, err := netip.ParseAddrPort(s); (err != nil || !j.isTaken(a)) && !slices.Contains(todo, s) {
			todo = append(todo, s)
		}
	}
	return todo
}

// pruneAttempts bounds the attempts that are remembered: it drops those that would not
// slow a new one any more. The caller holds mu.
func (j *joiner) pruneAttempts(now time.Time) {
	for a, t := range j.attempts {
		if !t.running && now.Sub(t.next) > 2*rejoinMax && now.Sub(t.last) > 2*rejoinMax {
			delete(j.attempts, a)
		}
	}
}

// dial joins an address that dueDials returned. The loop does not wait for it: through a
// cut, a dial takes as long as the transport allows.
func (j *joiner) dial(d dialRequest) {
	_, err := j.members.Join([]string{d.addr})
	if a, bad := netip.ParseAddrPort(d.addr); err == nil && bad == nil {
		j.events.addEvent(memberEvent{kind: memberAnswered, addr: a})
	}
	unlisted := err == nil && !j.listsAt(d)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.releaseSlot(d)
	if len(j.wanted) > 0 {
		defer j.wakeUp() // others may wait for its place
	}
	t := j.attempts[d.addr]
	t.running, t.last, t.err = false, time.Now(), joinError(err)
	switch {
	case err != nil:
		j.failed++
		if !t.reported {
			t.reported = true
			j.log.Warn("cannot join", "addr", d.addr, "error", t.err)
		}
		t.delay = min(max(2*t.delay, rejoinMin), rejoinMax)
	case unlisted:
		j.failed++
		if t.unlisted++; t.unlisted <= maxUnlistedRetries {
			t.delay = unlistedRetry
			j.requestAgain(d)
		} else {
			t.delay = min(2*t.delay, rejoinMax)
		}
	default:
		j.joins++
		t.unlisted, t.delay = 0, rejoinMax // the node is listed now, or a host name stands for one that is
	}
	t.next = t.last.Add(t.delay/2 + rand.N(t.delay))
}

// requestAgain keeps an address wanted whose node the membership refused, since it is
// about to find out that the node's old address is dead. The caller holds mu.
func (j *joiner) requestAgain(d dialRequest) {
	a, err := netip.ParseAddrPort(d.addr)
	if err != nil || d.id == "" {
		return
	}
	if _, other := j.wanted[a]; !other {
		j.addWanted(d.id, a, 0)
	}
}

// listsAt reports whether the membership lists a node at its address now. That tables
// were exchanged does not show it: memberlist refuses a node inside them, without an
// error, while it takes the name for alive at another address. A host name counts as
// listed, since it is not known which node's address it was.
func (j *joiner) listsAt(d dialRequest) bool {
	a, err := netip.ParseAddrPort(d.addr)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(j.members.Members(), func(n *memberlist.Node) bool {
		return nodeAddr(n) == a && (d.id == "" || n.Name == string(d.id))
	})
}

// joinError says what to look at after a failed join.
func joinError(err error) error {
	if err == nil {
		return nil
	}
	s := strings.Join(strings.Fields(err.Error()), " ")
	s = strings.TrimPrefix(s, "1 error occurred: * ")
	err = errors.New(s)
	switch {
	case strings.Contains(strings.ToLower(s), "no installed keys"), strings.Contains(s, "EOF"),
		strings.Contains(s, "encryption"):
		return fmt.Errorf("%w (does it have the same --key-file?)", err)
	case strings.Contains(s, "refused"):
		return fmt.Errorf("%w (is meshd running there, on that port?)", err)
	case strings.Contains(s, "timeout"), strings.Contains(s, "no route"):
		return fmt.Errorf("%w%s", err, noReplyHint)
	}
	return err
}
