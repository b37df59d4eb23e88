package gossip

import "time"

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
func (c *Core) needsProof(m *member) bool {
	return m.newcomer() && c.cfg.Probing > 0 && c.hearing() && c.now-m.since > newcomerDelay &&
		c.newcomers < maxNewcomerChecks
}

// newcomer reports whether there is nothing of a member but the list.
func (m *member) newcomer() bool { return m.listed && !m.proven }

// startPinging pings a member that is not pinged already, until it answers or others
// are asked (maxDoubt).
func (c *Core) startPinging(m *member) {
	if m.pingAt > 0 || c.cfg.Probing == 0 {
		return
	}
	m.pingCount = 0
	c.schedulePing(m, max(c.now, 1))
	if m.newcomer() {
		c.newcomers++
	}
}

// markProven notes that a member showed that it is there. Tables that are not yet
// synced are asked of it: the names that were listed before may all be made up.
func (c *Core) markProven(m *member) {
	if m.proven {
		return
	}
	m.proven = true
	for _, name := range c.order {
		if n := c.networks[name]; !n.table.View().Synced() && c.takesPart(m.id, name) {
			if !n.provenAppeared {
				n.provenAppeared, n.askedCount = true, 0
			}
			c.askForTable(n)
		}
	}
}

// countNewcomers counts the newcomers that are pinged and not yet judged. Checks
// of others, of a hundred dead hosts say, leave them their room; and so do those
// who were taken for absent, which are pinged on.
func (c *Core) countNewcomers() {
	c.newcomers = 0
	for _, m := range c.pinging {
		if m.newcomer() && m.phase != phaseAbsent {
			c.newcomers++
		}
	}
}

// hearing reports whether datagrams arrive here.
func (c *Core) hearing() bool { return c.lastHeard > 0 && !c.deaf() }

// pingHidden makes a hidden member be pinged a few times, if it is not already.
func (c *Core) pingHidden(m *member) {
	if m.pingAt == 0 {
		m.pingCount = maxPings - 16
		c.schedulePing(m, max(c.now, 1))
	}
}
