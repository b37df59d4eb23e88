package state

import (
	"net/netip"
	"time"
)

// This file composes a table of its parts and owns none of their state: streamSet
// has the records, ownWriter makes this node's own, replicas takes other owners',
// index shows them to readers.

// Table is the replicated table of one network: a stream per owner. It belongs
// to one goroutine; readers use its View.
type Table struct {
	streamSet
	ownWriter
	replicas
	work tableWork // belongs to the store's worklist
}

// newTable returns an empty table of s.
func newTable(network string, s *Store) *Table {
	t := &Table{streamSet: streamSet{
		network: network, self: s.self, limits: s.limits, live: s.live, yielded: s.yielded,
		streams: map[NodeID]*stream{}, index: newIndex(network, s.clock), total: &s.total,
	}}
	t.ownWriter = ownWriter{streamSet: &t.streamSet, inc: s.inc, disbelief: &s.disbelief}
	t.replicas = replicas{streamSet: &t.streamSet, retired: map[NodeID]Head{}, ownIncs: map[NodeID]uint64{}}
	t.held = func(o NodeID, yes bool) { s.setStream(o, t, yes) }
	t.index.observer = tableObserver{func() { s.work.publishSoon(t) }, func() { s.work.claimsChanged(t) }}
	t.index.bars.self, t.index.bars.loopback, t.index.bars.pools = s.self, s.limits.AllowLoopback, s.pools
	return t
}

// View returns the readers' side. It is safe for concurrent use.
func (t *Table) View() View { return t.index }

// Unbelieved returns how many claims ever bore a time so far ahead that this
// node does not carry them for their author (S16).
func (t *Table) Unbelieved() uint64 { return t.index.unbelieved }

// Publish makes all changes visible to readers and returns how long until what
// was held back by the bounded rate of S14 is due; 0 if nothing was. now is
// any monotonic time.
func (t *Table) Publish(now time.Duration) time.Duration { return t.index.publish(now) }

// Unpublished reports whether something has changed that [Table.Publish] has not
// brought to the view yet.
func (t *Table) Unpublished() bool { return len(t.index.dirty)+len(t.index.ops) > 0 }

// SetSynced records that the first full exchange with a peer is done (R4).
func (t *Table) SetSynced() { t.index.setSynced() }

// SetDef installs the effective definition of the network (V6).
func (t *Table) SetDef(d NetworkDef) { t.index.setDef(d) }

// TakeClaims reports whether claims, settings or the definition changed since
// the last call: whoever carries claims should look at them again (V2).
func (t *Table) TakeClaims() bool {
	return t.index.takeClaimsChanged()
}

// Assignment returns what the claims give a service (V3).
func (t *Table) Assignment(service string) Assignment { return t.index.vips.assign(service) }

// Holder returns the service that has the address, whether it serves it or not,
// or "" (V3).
func (t *Table) Holder(a netip.Addr) string {
	if x, claimed := t.index.vips.byAddr[a]; claimed {
		return x.winner()
	}
	return ""
}

// ClaimedVIPs returns how many addresses of the IPv4 pool are claimed, served or
// not.
func (t *Table) ClaimedVIPs() uint64 { return t.index.vips.used }

// Settings returns the effective settings of a service and whether any node
// states some (S8).
func (t *Table) Settings(service string) (SettingsClaim, bool) {
	c, _, ok := t.settings(service)
	return c, ok
}

// settings is Settings with the body in which the claim came.
func (t *Table) settings(service string) (c SettingsClaim, body string, ok bool) {
	s, _ := t.index.services.Load(service)
	if s == nil || len(s.settings) == 0 {
		return SettingsClaim{}, "", false
	}
	c, body = s.effective()
	return c, body, true
}

// Usage returns what a table holds: records with tombstones, the bytes of
// their text, and those of incomplete deltas; and how many streams it dropped
// to make room.
func (t *Table) Usage() (records, bytes, staged int, evicted uint64) {
	return t.use.records, t.use.bytes, t.use.staged, t.evicted
}
