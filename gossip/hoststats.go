package gossip

import (
	"net/netip"

	"meshd/state"
)

// HostStats are counters and gauges of a host.
type HostStats struct {
	In, Out                                           uint64 // bytes, memberlist's own included
	Inbox, Bulk                                       int    // waiting
	InboxBytes, BulkBytes                             int64  // of them
	InboxDropped, BulkDropped, BulkFailed, SendFailed uint64
	Joins, JoinsFailed                                uint64
	// packets and streams that would crash memberlist, or are too long
	Rejected uint64
	Refused  uint64 // streams over the bound on their number
	Panics   uint64 // steps of the protocol that panicked and were dropped
	Health   int    // memberlist's own score, 0 is best
}

// Stats returns the counters of the moment. Safe for concurrent use.
func (h *Host) Stats() HostStats {
	h.joiner.mu.Lock()
	joins, failed := h.joiner.joins, h.joiner.failed
	h.joiner.mu.Unlock()
	return HostStats{
		In: h.tr.in.Load(), Out: h.tr.out.Load(), Inbox: len(h.inbox), Bulk: len(h.bulk),
		InboxBytes: h.inboxBytes.Load(), BulkBytes: h.bulkBytes.Load(),
		InboxDropped: h.dropped.Load(), BulkDropped: h.bulkDropped.Load(), BulkFailed: h.bulkFailed.Load(),
		SendFailed: h.sendFailed.Load(),
		Joins:      joins, JoinsFailed: failed, Rejected: h.tr.rejected.Load(), Refused: h.tr.refused.Load(),
		Panics: h.panicked.Load(), Health: h.ml.GetHealthScore(),
	}
}

// Membership returns the names that memberlist lists, this node's included,
// for diagnosis.
func (h *Host) Membership() []string {
	var names []string
	for _, m := range h.ml.Members() {
		names = append(names, m.Name)
	}
	return names
}

// MembershipAddrs returns where memberlist lists each node, this one included,
// for diagnosis.
func (h *Host) MembershipAddrs() map[state.NodeID]netip.AddrPort {
	addrs := map[state.NodeID]netip.AddrPort{}
	for _, m := range h.ml.Members() {
		addrs[state.NodeID(m.Name)] = nodeAddr(m)
	}
	return addrs
}
