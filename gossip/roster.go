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

// addMember adds a member.
func (c *Core) addMember(m *member) {
	i, _ := slices.BinarySearchFunc(c.ordered, m.id, byName)
	c.ordered = slices.Insert(c.ordered, i, m)
	c.members[m.id] = m
}

// forgetMember forgets a member, and all that is kept of its streams.
func (c *Core) forgetMember(m *member) {
	for _, t := range c.store.Tables() {
		t.Exhume(m.id)
	}
	c.setListed(m, false)
	if i, ok := slices.BinarySearchFunc(c.ordered, m.id, byName); ok {
		c.ordered = slices.Delete(c.ordered, i, i+1)
	}
	delete(c.members, m.id)
	delete(c.pinging, m.id)
	delete(c.goodbyeChecks, m.id)
	c.store.Forget(m.id)
}

func byName(m *member, id state.NodeID) int { return strings.Compare(string(m.id), string(id)) }

// setListed notes whether the membership lists a member.
func (c *Core) setListed(m *member, listed bool) {
	switch {
	case listed && !m.listed:
		c.detector.listed++
	case !listed && m.listed:
		c.detector.listed--
	}
	m.listed = listed
}

// membershipSize is how many others the membership goes by in its own times: those whom it
// lists, and those whom it has lost so lately that it still counts them. Who has
// been gone for longer, or is only named in streams, makes nothing slower.
func (c *Core) membershipSize() int { return max(c.detector.listed, c.recent) }

// retryable reports whether a member is one of the dead that are pinged now and then.
func (m *member) retryable() bool {
	return (m.phase == phaseDead || m.phase == phaseKept || m.phase == phaseAbsent) && m.pingAt == 0 && m.known()
}

// nthDead returns the nth of them, by name; there must be so many.
func (c *Core) nthDead(n int) *member {
	for _, m := range c.ordered {
		if m.retryable() {
			if n--; n < 0 {
				return m
			}
		}
	}
	return nil
}
