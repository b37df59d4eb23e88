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

// enter adds a member.
func (c *Core) enter(m *member) {
	i, _ := slices.BinarySearchFunc(c.ordered, m.id, byName)
	c.ordered = slices.Insert(c.ordered, i, m)
	c.members[m.id] = m
}

// drop forgets a member, and all that is kept of its streams.
func (c *Core) drop(m *member) {
	for _, t := range c.store.Tables() {
		t.Exhume(m.id)
	}
	c.list(m, false)
	if i, ok := slices.BinarySearchFunc(c.ordered, m.id, byName); ok {
		c.ordered = slices.Delete(c.ordered, i, i+1)
	}
	delete(c.members, m.id)
	delete(c.pinging, m.id)
	delete(c.partings, m.id)
	c.store.Forget(m.id)
}

func byName(m *member, id state.NodeID) int { return strings.Compare(string(m.id), string(id)) }

// list notes whether the membership lists a member.
func (c *Core) list(m *member, listed bool) {
	switch {
	case listed && !m.listed:
		c.detector.listed++
	case !listed && m.listed:
		c.detector.listed--
	}
	m.listed = listed
}

// crowd is how many others the membership goes by in its own times: those whom it
// lists, and those whom it has lost so lately that it still counts them. Who has
// been gone for longer, or is only named in streams, makes nothing slower.
func (c *Core) crowd() int { return max(c.detector.listed, c.recent) }

// stray reports whether a member is one of the dead that are pinged now and then.
func (m *member) stray() bool {
	return (m.phase == phaseDead || m.phase == phaseKept || m.phase == phaseAbsent) && m.pingAt == 0 && m.known()
}

// nthStray returns the nth of them, by name; there must be so many.
func (c *Core) nthStray(n int) *member {
	for _, m := range c.ordered {
		if m.stray() {
			if n--; n < 0 {
				return m
			}
		}
	}
	return nil
}
