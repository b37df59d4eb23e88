package gossip

import (
	"meshd/state"
	"time"
)

// The membership lists whoever is named to it, and takes one round of its probes,
// which grows with their number, to find out that some never were. So a member of
// which there is nothing but the list is pinged soon (G17): a host answers in a
// moment, and stays what it was meanwhile. What does not answer, neither here nor
// through others, is as good as dead until it does.
const (
	newcomerDelay     = time.Second // for it to speak by itself
	maxNewcomerChecks = 128         // of newcomers under way up to which one more begins, once a second
)

// needsProof reports whether a listed member is to be pinged since it has not
// shown that it exists. A node that hears nobody cannot tell.
func (p *pings) needsProof(m *member) bool {
	return m.newcomer() && p.cfg.Probing > 0 && p.roster.hearing() && p.now-m.since > newcomerDelay &&
		p.newcomers < maxNewcomerChecks
}

// newcomer reports whether there is nothing of a member but the list.
func (m *member) newcomer() bool { return m.listed && !m.proven }

// start pings a member that is not pinged already, until it answers or others
// are asked (maxDoubt).
func (p *pings) start(m *member) {
	if m.pingAt > 0 || p.cfg.Probing == 0 {
		return
	}
	m.pingCount = 0
	p.schedule(m, max(p.now, 1))
	if m.newcomer() {
		p.newcomers++
	}
}

// markProven notes that a member showed that it is there. Tables that are not yet
// synced are asked of it: the names that were listed before may all be made up.
func (l *liveness) markProven(m *member) {
	if m.proven {
		return
	}
	m.proven = true
	l.tables.memberProven(m.id)
}

// memberProven asks for the tables that are not yet synced: the members that were
// listed before may all be made up, and this one is not.
func (f *fetch) memberProven(id state.NodeID) {
	for _, name := range f.nets.order {
		if n := f.nets.byName[name]; !n.table.View().Synced() && f.roster.takesPart(id, name) {
			if !n.provenAppeared {
				n.provenAppeared, n.askedCount = true, 0
			}
			f.request(n)
		}
	}
}

// countNewcomers counts the newcomers that are pinged and not yet judged. Checks
// of others, of a hundred dead hosts say, leave them their room; and so do those
// who were taken for absent, which are pinged on.
func (p *pings) countNewcomers() {
	p.newcomers = 0
	for _, m := range p.pinging {
		if m.newcomer() && m.phase != phaseAbsent {
			p.newcomers++
		}
	}
}

// hearing reports whether datagrams arrive here.
func (r *roster) hearing() bool { return r.lastHeard > 0 && !r.deaf() }

// pingHidden makes a hidden member be pinged a few times, if it is not already.
func (p *pings) pingHidden(m *member) {
	if m.pingAt == 0 {
		m.pingCount = maxPings - 16
		p.schedule(m, max(p.now, 1))
	}
}
