package gossip

import (
	"fmt"
	"net/netip"
	"time"

	"meshd/state"
)

// The doors of a core for what the membership reports, and for who asks what
// became of the members. The parts behind them are liveness, checks and
// duplicates.

// MemberAlive reports that the membership lists a node at addr.
func (c *Core) MemberAlive(now time.Duration, id state.NodeID, addr netip.AddrPort) {
	c.advance(now)
	if id == c.cfg.Self {
		return
	}
	m := c.liveness.ensureMember(id)
	c.liveness.setAddr(m, addr)
	m.seen = true
	c.roster.setListed(m, true)
	c.liveness.observe(m, signListed)
	if m.reachable() {
		c.fetch.compareWithMember(id)
	}
	c.finishStep()
}

// MemberDead reports that the membership takes a node for dead. The core checks
// that before it hides anything.
func (c *Core) MemberDead(now time.Duration, id state.NodeID) {
	c.advance(now)
	m := c.roster.members[id]
	if m == nil || id == c.cfg.Self {
		return
	}
	c.roster.setListed(m, false)
	m.unlistedAt = c.now
	c.liveness.observe(m, signUnlisted)
	c.finishStep()
}

// MemberReached reports that a node answered the membership's own probe, at addr.
func (c *Core) MemberReached(now time.Duration, id state.NodeID, addr netip.AddrPort) {
	c.advance(now)
	c.roster.lastHeard = c.now // such an answer is a datagram
	m := c.roster.members[id]
	if m == nil {
		return
	}
	m.datagramAt = c.now
	if m.candidate.addr == addr {
		m.candidate.answeredAt = c.now
	} else {
		if m.phase == phaseAlive && m.addr == addr {
			c.roster.setListed(m, true) // the membership probes those that it lists: the goodbye was wrong
		}
		c.liveness.markReached(m)
	}
	c.finishStep()
}

// JoinAnswered reports that a node at addr answered a join. Which node it is, its
// answer to a ping will show.
func (c *Core) JoinAnswered(now time.Duration, addr netip.AddrPort) {
	c.advance(now)
	c.checks.joinAnswered(addr)
	c.finishStep()
}

// Conflict reports that the membership saw a name at another address than the one
// it lists: either the node came back elsewhere before it was missed, or two
// nodes have the name (S7). Their answers to pings tell which.
func (c *Core) Conflict(now time.Duration, id state.NodeID, addr netip.AddrPort) {
	c.advance(now)
	if id == c.cfg.Self {
		c.duplicates.challenge(addr)
		return
	}
	if m := c.roster.members[id]; m != nil {
		c.liveness.considerAddr(m, addr)
	}
}

// answeredAt reports whether a member answered this node's own question at addr lately.
func (c *Core) answeredAt(id state.NodeID, addr netip.AddrPort) bool {
	m := c.roster.members[id]
	return m != nil && m.addr == addr && c.liveness.answeredRecently(m)
}

// MemberInfo describes a member to people.
type MemberInfo struct {
	ID     state.NodeID
	Addr   netip.AddrPort // where it is, as far as this node knows
	State  string         // alive, suspect, dead or left
	Listed bool           // the membership lists it; a live member that is not listed is being joined
	Proven bool           // it answered this node, or spoke and states where it is (G17)
	Since  time.Duration  // when State began, on the core's clock
	Boot   uint64         // of its last packet; 0: none came
	Node   state.NodeInfo // what its own record says
}

// Members returns the other nodes, sorted by name.
func (c *Core) Members() []MemberInfo {
	names := [...]string{"alive", "suspect", "suspect", "dead", "suspect", "left", "dead"}
	var out []MemberInfo
	for _, m := range c.roster.ordered.all() {
		n, _ := c.store.Node(m.id)
		out = append(out, MemberInfo{
			ID: m.id, Addr: m.addr, State: names[m.phase], Listed: m.listed, Proven: m.proven,
			Since: m.since, Boot: m.boot, Node: n,
		})
	}
	return out
}

// Room returns how many other nodes are known, in whatever state, and may be.
func (c *Core) Room() Room {
	return Room{
		Held: len(c.roster.members), Limit: maxMembers, what: "nodes are known",
		beyond: "those that are only heard of are not taken in",
	}
}

// Room is how many of something there are, and how many there may be.
type Room struct {
	Held, Limit  int
	what, beyond string // for people: what there are, and what becomes of more
}

// Full says, for people, that four fifths or more are taken; empty: there is room.
func (r Room) Full() string {
	if r.Held < r.Limit/5*4 {
		return ""
	}
	return fmt.Sprintf("%d of at most %d %s: above that, %s", r.Held, r.Limit, r.what, r.beyond)
}

// Preserving reports whether self-preservation is on (S12).
func (c *Core) Preserving() bool { return c.liveness.preserve.on }
