package gossip

import (
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// The members are looked at once a second, in the order of their names, and there
// may be 65,536 of them that somebody made up. So the order is kept, and what is
// asked for each of them is counted, not looked for.

// deadMemory is about how long memberlist goes on to count a node that it takes
// for dead.
const deadMemory = 30 * time.Second

// add adds a member.
func (r *roster) add(m *member) {
	i, _ := slices.BinarySearchFunc(r.ordered, m.id, byName)
	r.ordered = slices.Insert(r.ordered, i, m)
	r.members[m.id] = m
}

// remove removes a member.
func (r *roster) remove(m *member) {
	r.setListed(m, false)
	if i, ok := slices.BinarySearchFunc(r.ordered, m.id, byName); ok {
		r.ordered = slices.Delete(r.ordered, i, i+1)
	}
	delete(r.members, m.id)
}

// forget forgets a member, and all that is kept of its streams.
func (l *liveness) forget(m *member) {
	for _, t := range l.store.Tables() {
		t.Exhume(m.id)
	}
	l.roster.remove(m)
	l.pings.schedule(m, 0)
	l.goodbyes.forget(m.id)
	l.store.Forget(m.id)
}

func byName(m *member, id state.NodeID) int { return strings.Compare(string(m.id), string(id)) }

// setListed notes whether the membership lists a member.
func (r *roster) setListed(m *member, listed bool) {
	switch {
	case listed && !m.listed:
		r.listed++
	case !listed && m.listed:
		r.listed--
	}
	m.listed = listed
}

// membershipSize is how many others the membership goes by in its own times: those whom it
// lists, and those whom it has lost so lately that it still counts them. Who has
// been gone for longer, or is only named in streams, makes nothing slower.
func (r *roster) membershipSize() int { return max(r.listed, r.recent) }

// retryable reports whether a member is one of the dead that are pinged now and then.
func (m *member) retryable() bool {
	return (m.phase == phaseDead || m.phase == phaseKept || m.phase == phaseAbsent) && m.pingAt == 0 && m.known()
}

// nthDead returns the nth of them, by name; there must be so many.
func (p *pings) nthDead(n int) *member {
	for _, m := range p.roster.ordered {
		if m.retryable() {
			if n--; n < 0 {
				return m
			}
		}
	}
	return nil
}

// roster is whom this node knows. The other parts read members here; only liveness
// changes what becomes of them.
type roster struct {
	*env

	members map[state.NodeID]*member
	ordered []*member // the same, by name
	listed  int       // how many of them the membership lists
	recent  int       // how many the membership may still count, at the last sweep: see membershipSize

	targets   map[string][]state.NodeID // cache of living, by network; cleared when a member's phase or part changes
	lastHeard time.Duration             // last packet that can have been a datagram, from any node
}
