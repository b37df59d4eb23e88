package gossip

import (
	"net/netip"

	"meshd/state"
)

// This file is what of a host is measured from outside. Nothing in it changes anything.

// HostStats are counters and gauges of a host.
type HostStats struct {
	// What came and went.

	In, Out      uint64 // bytes, memberlist's own included
	Rejected     uint64 // packets and streams that would crash memberlist, or are too long
	Refused      uint64 // streams over the bound on their number
	SendFailed   uint64 // datagrams that could not be sent
	BulkFailed   uint64 // packets that could not be sent over a stream
	Inbox, Bulk  int    // packets that wait for the core, and for a stream
	InboxBytes   int64  // bytes of Inbox
	BulkBytes    int64  // bytes of Bulk
	InboxDropped uint64 // packets over the bounds of Inbox
	BulkDropped  uint64 // packets over the bounds of Bulk

	// The state of the host.

	Joins, JoinsFailed uint64 // dials that listed their node, and those that did not
	Announced          uint64 // nodes that answered and that memberlist was told of, in place of a dial
	Peers, MaxPeers    int    // nodes that are remembered, and how many may be
	Panics             uint64 // steps of the protocol that panicked and were dropped
	Health             int    // memberlist's own score, 0 is best
}

// Stats returns the counters of the moment.
func (h *Host) Stats() HostStats {
	joins, failed, announced := h.joiner.counts()
	t := h.transport.Counters()
	peers := h.PeerRoom()
	return HostStats{
		In: t.In, Out: t.Out, Rejected: t.Rejected, Refused: t.Refused,
		SendFailed: h.sendFailed.Load(), BulkFailed: h.streams.failed.Load(),
		Inbox: len(h.inbox.packets), Bulk: len(h.streams.sends), InboxBytes: h.inbox.bytes.Load(),
		BulkBytes: h.streams.bytes.Load(), InboxDropped: h.inbox.dropped.Load(), BulkDropped: h.streams.dropped.Load(),
		Peers: peers.Held, MaxPeers: peers.Limit,
		Joins: joins, JoinsFailed: failed, Announced: announced, Panics: h.panics.count.Load(), Health: h.ml.GetHealthScore(),
	}
}

// Listed returns how many nodes memberlist lists, this one included, for diagnosis.
func (h *Host) Listed() int { return h.ml.NumMembers() }

// Membership returns the names that memberlist lists, this node's included, for
// diagnosis.
func (h *Host) Membership() []string {
	var names []string
	for _, m := range h.ml.Members() {
		names = append(names, m.Name)
	}
	return names
}

// MembershipAddrs returns where memberlist lists each node, this one included, for
// diagnosis.
func (h *Host) MembershipAddrs() map[state.NodeID]netip.AddrPort {
	addrs := map[state.NodeID]netip.AddrPort{}
	for _, m := range h.ml.Members() {
		addrs[state.NodeID(m.Name)] = nodeAddr(m)
	}
	return addrs
}
