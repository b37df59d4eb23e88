package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// member is the core's view of one other node (S9). Local, never replicated.
type member struct {
	id           state.NodeID
	place              // where it is, as far as we know
	candidate    place // where else it may be; the zero place: nowhere
	phase        phase
	listed       bool // membership says it is alive
	boot         uint64
	since        time.Duration // of the phase
	checkUntil   time.Duration // of phaseVerify: when it ends without an answer
	reportedDead bool          // reported dead while it was alive
	checkedAt    time.Duration // when its last check began, or will; 0: never
	falseAlarmAt time.Duration // when it last turned out to live after all; 0: never
	heardAt      time.Duration // last packet from it
	seen         bool          // heard or listed in this life of ours
	// proven is whether it showed in this life of ours that there is such a node:
	// it answered us, or spoke and states where it is. What is only said to be a
	// member counts nowhere.
	proven bool
	// streamTill is until when everything for it goes over streams: datagrams
	// do not seem to arrive.
	streamUntil time.Duration

	goodbyeAskedAt time.Duration // when it was last asked whether it leaves; 0: never
	relayNonce     uint64        // the nonce of the pings that others were asked for
	reachedAt      time.Duration // last time that it answered us, not others
	datagramAt     time.Duration // last time that it answered a datagram of ours with one
	pingAt         time.Duration // 0: not pinging
	pingCount      int
	offered        bool
	// aged is how far its streams have been put away, so that the long dead cost
	// nothing: 1 not offered any more, 2 buried in all tables.
	retired int
}

// MemberAlive tells the core that the membership lists a node at addr.
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

// compareWithMember exchanges tables with a node that appeared: at once if it is new
// to us and we are few, else with the probability that makes it a few of us.
func (f *fetch) compareWithMember(id state.NodeID) {
	for _, name := range f.nets.order {
		if f.roster.takesPart(id, name) {
			f.compareWith(f.nets.byName[name], id)
		}
	}
}

// MemberDead tells the core that the membership thinks a node is dead. The
// core checks that before it hides anything.
func (c *Core) MemberDead(now time.Duration, id state.NodeID) {
	c.advance(now)
	m := c.roster.members[id]
	if m == nil || id == c.cfg.Self {
		return
	}
	c.roster.setListed(m, false)
	c.liveness.observe(m, signUnlisted)
	c.finishStep()
}

func (l *liveness) ensureMember(id state.NodeID) *member {
	m := l.roster.members[id]
	if m == nil {
		m = &member{id: id, phase: phaseDead, since: l.now, offered: true}
		l.roster.add(m)
		if n, ok := l.store.Node(id); ok {
			l.setAddr(m, n.Addr)
		}
	}
	return m
}

// learnOwner is called for a stream whose owner we had not heard of: the
// membership may have a hole, so it is checked like a reported death (G11).
func (l *liveness) learnOwner(id state.NodeID) {
	if l.cfg.Peers != nil || id == l.cfg.Self {
		return
	}
	if m := l.roster.members[id]; m != nil {
		m.retired = 0 // what is new of it is put away, too
		return        // its streams have its liveness from their beginning
	}
	if len(l.roster.members) >= maxMembers {
		return
	}
	if m := l.ensureMember(id); len(l.pings.pinging) < maxNamedChecks {
		l.observe(m, signNamed)
	}
}

// maxNamedChecks bounds the checks under way up to which an owner that is only
// named is checked: a thousand made-up names must not cost the mesh as many
// pings. The others are found like the dead: when they are heard of or listed.
const maxNamedChecks = 256

// learnAddr takes a node's address from its own record: at its word where the
// membership has none, and as a place to ask at where we have another, for the
// record may be of a former life, or the address.
func (l *liveness) learnAddr(id state.NodeID) {
	m := l.roster.members[id]
	if m == nil {
		return
	}
	n, ok := l.store.Node(id)
	switch {
	case !ok || !n.Addr.IsValid():
	case m.known():
		l.considerAddr(m, n.Addr)
	default:
		l.setAddr(m, n.Addr)
	}
}

// heardFrom notes a sign of life. It restores a hidden node at once (S9).
func (l *liveness) heardFrom(id state.NodeID, boot uint64) {
	if l.cfg.Peers != nil {
		return
	}
	if l.roster.members[id] == nil && len(l.roster.members) >= maxMembers {
		return // G8: made-up names must not fill the memory
	}
	_, known := l.store.Node(id)
	if !known && l.roster.members[id] == nil {
		l.Stats.Strangers++
		return // the membership will name it, or its own record
	}
	m := l.ensureMember(id)
	m.seen = true
	if known {
		l.markProven(m)
	} else if m.newcomer() {
		l.pings.start(m) // one that speaks comes before those who are only listed
	}
	m.heardAt = l.now
	if l.packetFrom.IsValid() || !l.roster.usesStream(id) { // answers that came over a stream do not tell that datagrams arrive
		l.roster.lastHeard = l.now
	}
	if m.phase == phaseLeft && m.boot == boot && l.now-m.since < goodbyeTail {
		return // the tail of its goodbye; later, somebody else said that it left
	}
	if m.boot != boot {
		if m.boot != 0 {
			delete(l.goodbyes.checks, id) // it was the former life that left
		}
		m.boot, m.reportedDead, m.falseAlarmAt = boot, false, 0 // the former life did end
	}
	l.observe(m, signHeard)
}

// MemberReached tells the core that a node answered the membership's probe
// directly, at addr.
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
			c.roster.setListed(m, true) // it probes whom it lists: a goodbye that was not its own is forgotten
		}
		c.liveness.markReached(m)
	}
	c.finishStep()
}

// markReached notes that a node answers this one: there is no doubt about the way
// to it any more.
func (l *liveness) markReached(m *member) {
	m.reachedAt, m.candidate = l.now, place{}
	if l.packetFrom.IsValid() {
		m.datagramAt = l.now
	}
	l.markProven(m)
	l.observe(m, signReached)
	l.store.SetAnswers(m.id, livenessOf(m.phase).Answers())
}

// unreached reports whether a listed member has not answered this node's own
// probes for some rounds of the membership.
func (l *liveness) unreached(m *member) bool { return l.overdue(m, m.reachedAt) }

// undelivered reports whether a listed member has not answered this node's
// datagrams for as long, whatever it answered over streams.
func (l *liveness) undelivered(m *member) bool { return l.overdue(m, m.datagramAt) }

func (l *liveness) overdue(m *member, answered time.Duration) bool {
	rounds := 3 * time.Duration(l.roster.membershipSize()+1) * l.cfg.Probing
	return rounds > 0 && m.listed && l.now-max(answered, m.since) > rounds+3*time.Second
}

// checkIfUnanswered pings a member that lives, says the membership, but has not answered
// this node's own probes for some rounds: others may reach it where this node
// does not (G11); and one of which there is nothing yet but that word.
func (l *liveness) checkIfUnanswered(m *member) {
	if l.unreached(m) || l.pings.needsProof(m) {
		l.pings.start(m)
	}
}

// goodbyeTail is how long packets of a node that left do not mean that it is back.
const goodbyeTail = 2 * speakAfterLeaving

// maxUnanswered is how many pings in a row may be lost before others are asked.
const maxUnanswered = 4

// maxMembers bounds the members known from packets alone.
const maxMembers = 1 << 16

// markAlive takes a member as alive.
func (l *liveness) markAlive(m *member) {
	if m.phase == phaseVerify {
		l.Stats.FalseAlarms++
	}
	if m.reportedDead && l.now-m.since < falseAlarmMemory {
		m.falseAlarmAt = l.now
	}
	m.reportedDead = false
	l.requestRejoin(m)
	was, since := m.phase, m.since
	m.pingCount = 0
	if !m.candidate.known() { // else it is still open where it is
		l.pings.schedule(m, 0)
	}
	l.setPhase(m, phaseAlive)
	if was == phaseDead || was == phaseKept {
		l.pings.pingVanishedAround(since)
	}
}

// reachable reports whether packets should go to a member: it is thought to
// live, and somebody knows where.
func (m *member) reachable() bool {
	return (m.phase == phaseAlive || m.phase == phaseVerify) && (m.listed || m.addr.IsValid())
}

// checkInterval is how far apart the checks of one member begin.
const checkInterval = time.Second

const (
	stallThreshold   = 50 * time.Millisecond // a timer that is later tells that the host stood still
	maxExtension     = 5 * time.Second       // a host that always stands still must hide the dead, too
	falseAlarmMemory = 15 * time.Second
)

func livenessOf(p phase) state.Liveness {
	switch p {
	case phaseAlive:
		return state.Alive
	case phaseVerify, phaseRelayed:
		return state.Suspected
	case phaseKept:
		return state.Kept
	}
	return state.Dead
}

// setPhase moves a member on and tells views and listeners.
func (l *liveness) setPhase(m *member, p phase) {
	if m.phase == p {
		return
	}
	was := m.phase
	m.phase, m.since, m.retired = p, l.now, 0
	live := livenessOf(p)
	l.store.SetLiveness(m.id, live)
	if !live.Answers() {
		l.store.SetAnswers(m.id, false)
	}
	clear(l.roster.targets)
	if !m.offered {
		m.offered = true
		for _, t := range l.store.Tables() {
			t.SetOffered(m.id, true)
			t.Exhume(m.id)
		}
	}
	kind := map[phase]EventKind{
		phaseAlive: EventAlive, phaseVerify: EventSuspect, phaseRelayed: EventSuspect,
		phaseKept: EventSuspect, phaseDead: EventDead, phaseAbsent: EventDead, phaseLeft: EventLeft,
	}[p]
	if livenessOf(was).String() != livenessOf(p).String() || p == phaseLeft {
		l.outbox.emit(Event{Kind: kind, Node: m.id, Addr: m.addr})
	}
}

// maxPings ends the pinging of a node that does not answer; pingStray goes on.
const maxPings = 32

// MemberInfo describes a member for people.
type MemberInfo struct {
	ID    state.NodeID
	Addr  netip.AddrPort
	State string // alive, suspect, dead, left
	// Listed is whether the membership has it; one that is alive and is not
	// listed is being joined.
	Listed bool
	// Proven is whether it answered this node, or spoke and states where it is (G17).
	Proven bool
	Since  time.Duration // in the core's time
	Boot   uint64
	Node   state.NodeInfo
}

// Members returns the other nodes, sorted by name.
func (c *Core) Members() []MemberInfo {
	names := [...]string{"alive", "suspect", "suspect", "dead", "suspect", "left", "dead"}
	var out []MemberInfo
	for _, m := range c.roster.ordered {
		n, _ := c.store.Node(m.id)
		out = append(out, MemberInfo{
			ID: m.id, Addr: m.addr, State: names[m.phase], Listed: m.listed, Proven: m.proven,
			Since: m.since, Boot: m.boot, Node: n,
		})
	}
	return out
}

// provenObserver hears of members that show for the first time that they exist.
type provenObserver interface {
	memberProven(id state.NodeID)
}

// liveness is what this node makes of the others.
type liveness struct {
	*env
	roster   *roster
	outbox   *outbox
	pings    *pings
	goodbyes *goodbyes
	tables   provenObserver

	preserve preservation
}
