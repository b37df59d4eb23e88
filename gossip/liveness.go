package gossip

import (
	"time"

	"meshd/state"
)

// This file owns the phase of every member: signs come in from packets, the
// membership, pings and goodbyes; what becomes of the member leaves as a phase,
// in the store's overlay (S9) and as an event.

// liveness decides what this node makes of the others (S9, G11). Signs of a member go
// in; transition says what becomes of it.
type liveness struct {
	*env
	roster   *roster
	outbox   *outbox
	pings    *pings
	goodbyes *goodbyes
	tables   provenObserver

	preserve preservation
	swept    sweptMembers
}

// sweptMembers is how far the sweeps have come, and what the last one found.
type sweptMembers struct {
	next   state.NodeID // the name from which on the next one looks in turn
	kept   int          // proven members that are kept
	recent int          // members that vanished a moment ago
}

// provenObserver hears of members that show for the first time that they exist.
type provenObserver interface {
	memberProven(id state.NodeID)
}

// observe applies a sign of a member: its phase changes as transition says, and
// the act is done.
func (l *liveness) observe(m *member, s sign) {
	if s == signUnlisted && l.putOff(m) {
		return
	}
	to, do := transition(m.phase, m.listed, s)
	switch do {
	case actMarkAlive:
		l.markAlive(m, s)
	case actCheck:
		m.reportedDead = m.reportedDead || s == signUnlisted
		l.startCheck(m, s)
	case actStopPinging:
		l.pings.schedule(m, 0)
	case actPing:
		l.pings.pingHidden(m)
	case actAskGoodbye:
		l.goodbyes.ask(m)
	case actNone:
		l.setPhase(m, to)
	}
}

// markAlive puts a member into phaseAlive: checks end, and the membership is
// asked to list it, but upon a change that it made. That reaches all nodes at
// once, and they must not all join it: those that pinged it do, and the others
// when it is not listed two seconds later.
func (l *liveness) markAlive(m *member, s sign) {
	if m.phase == phaseVerify {
		l.Stats.FalseAlarms++
	}
	if m.reportedDead && l.now-m.since < falseAlarmMemory {
		m.falseAlarmAt = l.now
	}
	m.reportedDead = false
	if s != signPushed {
		l.requestRejoin(m)
	}
	was, since := m.phase, m.since
	m.pingCount = 0
	if !m.candidate.known() { // else the pings to both addresses go on
		l.pings.schedule(m, 0)
		if !m.listed && m.known() && !l.answeredRecently(m) {
			l.pings.start(m) // its answer says where it is: then nobody needs to dial it
		}
	}
	l.setPhase(m, phaseAlive)
	if was == phaseDead || was == phaseKept {
		l.pings.pingVanishedAround(since)
	}
}

// setPhase changes the phase of a member, in the store's overlay too, and emits
// an event if that changes how the member is served.
func (l *liveness) setPhase(m *member, p phase) {
	if m.phase == p {
		return
	}
	was := m.phase
	m.phase, m.since, m.retired = p, l.now, inService
	l.preserve.hidden = l.preserve.hidden || p == phaseDead
	live := livenessOf(p)
	l.store.SetLiveness(m.id, live)
	if !live.Answers() {
		l.store.SetAnswers(m.id, false)
	}
	l.roster.update(m)
	if !m.offered {
		m.offered = true
		for _, t := range l.store.Tables() {
			t.SetOffered(m.id, true)
			t.Readmit(m.id)
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

// ensureMember returns the member of that name, as a dead one if there is none
// yet.
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

// learnOwner makes a member of the owner of a stream that was not known. The
// membership may have missed it, so it is checked like a reported death (G11).
func (l *liveness) learnOwner(id state.NodeID) {
	if l.cfg.Peers != nil || id == l.cfg.Self {
		return
	}
	if m := l.roster.members[id]; m != nil {
		m.retired = inService // what is new of it is put away again
		return                // its streams get its liveness as they appear
	}
	if len(l.roster.members) >= maxMembers {
		return
	}
	if m := l.ensureMember(id); l.pings.pinging.len() < maxNamedChecks {
		l.observe(m, signNamed)
	}
}

// maxNamedChecks bounds the checks under way up to which an owner that is only
// named in a stream is checked too: a thousand invented names must not cost the
// mesh a thousand series of pings. The other owners are found like the dead, when
// they are heard or listed.
const maxNamedChecks = 256

// heardFrom takes a packet as a sign of life of its sender. It restores a hidden
// node at once (S9).
func (l *liveness) heardFrom(id state.NodeID, boot uint64) {
	if l.cfg.Peers != nil {
		return
	}
	if l.roster.members[id] == nil && len(l.roster.members) >= maxMembers {
		return // G8: invented names must not fill the memory
	}
	_, known := l.store.Node(id)
	if !known && l.roster.members[id] == nil {
		l.Stats.Strangers++
		return // wait for the membership, or for its own record
	}
	m := l.ensureMember(id)
	m.seen = true
	if known {
		l.markProven(m)
	} else if m.newcomer() {
		l.pings.start(m) // it speaks, so it comes before those that are only listed
	}
	m.heardAt = l.now
	// An answer over a stream does not show that datagrams arrive.
	if l.packetFrom.IsValid() || !l.roster.usesStream(id) {
		l.roster.lastHeard = l.now
	}
	if m.phase == phaseLeft && m.boot == boot && l.now-m.since < goodbyeTail {
		return // the tail of its goodbye
	}
	if m.boot != boot {
		if m.boot != 0 {
			l.goodbyes.forget(id) // it was the former life that left
		}
		m.boot, m.reportedDead, m.falseAlarmAt = boot, false, 0 // the report was about the former life
	}
	l.observe(m, signHeard)
}

// goodbyeTail is how long packets of a node that left do not mean that it is
// back.
const goodbyeTail = 2 * speakAfterLeaving

// markReached records that a member answered this node: the way to it works, and
// its address is the right one.
func (l *liveness) markReached(m *member) {
	again := l.answeredRecently(m)
	m.reachedAt, m.candidate = l.now, place{}
	if !again && m.rejoinAt != l.now {
		l.requestRejoin(m) // it is known now where it is
	}
	if l.packetFrom.IsValid() {
		m.datagramAt = l.now
	}
	l.markProven(m)
	l.observe(m, signReached)
	l.store.SetAnswers(m.id, livenessOf(m.phase).Answers())
}

// markProven records that a member has shown that it exists.
func (l *liveness) markProven(m *member) {
	if m.proven {
		return
	}
	m.proven = true
	l.roster.update(m)
	l.tables.memberProven(m.id)
}

// unreached reports whether a listed member has not answered this node's own
// probes for some rounds of the membership.
func (l *liveness) unreached(m *member) bool { return l.overdue(m, m.reachedAt) }

// undelivered reports whether a listed member has not answered this node's
// datagrams for as long, whatever it answered over streams.
func (l *liveness) undelivered(m *member) bool { return l.overdue(m, m.datagramAt) }

// overdue reports whether a listed member should have answered since answered.
func (l *liveness) overdue(m *member, answered time.Duration) bool {
	rounds := 3 * time.Duration(l.roster.membershipSize()+1) * l.cfg.Probing
	return rounds > 0 && m.listed && l.now-max(answered, m.since) > rounds+3*time.Second
}

// checkIfUnanswered pings a member that the membership lists as alive, but that
// has not answered this node's own probes for some rounds: others may reach it
// where this node does not (G11). It also pings a member of which there is
// nothing but the list.
func (l *liveness) checkIfUnanswered(m *member) {
	if l.unreached(m) || l.pings.needsProof(m) {
		l.pings.start(m)
	}
}

// answerFresh is for how long an answer shows where a member is.
const answerFresh = 2 * time.Second

// answeredRecently reports whether a member answered this node at its address just now.
func (l *liveness) answeredRecently(m *member) bool {
	return m.reachedAt > 0 && l.now-m.reachedAt <= answerFresh
}

// requestRejoin asks the layer above for a join of a member that the membership
// does not list.
func (l *liveness) requestRejoin(m *member) {
	if !m.listed && m.known() {
		m.rejoinAt = l.now
		l.outbox.emit(Event{Kind: EventRejoin, Node: m.id, Addr: m.addr})
	}
}
