package gossip

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/state"
)

// This file is what memberlist calls. It calls under its own lock, from its own
// goroutines, so everything here only queues, counts or refuses.

// delegate implements memberlist's delegates: Delegate, EventDelegate,
// ConflictDelegate, AliveDelegate and PingDelegate. Safe for concurrent use.
type delegate struct {
	self   state.NodeID
	core   *Core // for its fixed configuration only
	joiner *joiner
	coords *coordinates
	events *memberQueue
	inbox  *packetQueue
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses, before memberlist
// records anything, a node at an address that no node can have, and more nodes than
// there can be.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	a := nodeAddr(n)
	switch {
	case state.NodeID(n.Name) == d.self:
		return nil
	case state.CheckName(n.Name) != nil:
		return errors.New("its name is none")
	case !d.core.usableAddr(a):
		return fmt.Errorf("%v is no address of a node", a)
	case d.joiner.listedCount.Load() >= maxListed && !d.joiner.isListed(state.NodeID(n.Name)):
		return errors.New("there are too many nodes")
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.events.add(memberJoined, n) }

// NotifyLeave implements memberlist.EventDelegate.
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.events.add(memberGone, n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.events.add(memberJoined, n) }

// NotifyConflict implements memberlist.ConflictDelegate.
func (d *delegate) NotifyConflict(_, other *memberlist.Node) { d.events.add(memberConflict, other) }

// AckPayload implements memberlist.PingDelegate.
func (d *delegate) AckPayload() []byte { return d.coords.encode() }

// NotifyPingComplete implements memberlist.PingDelegate.
func (d *delegate) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, payload []byte) {
	d.events.add(memberReached, other)
	if c := decodeCoordinate(payload); c != nil {
		d.joiner.updateCoordinate(state.NodeID(other.Name), c, rtt)
	}
}

// NotifyMsg implements memberlist.Delegate (G1). It gets what came over streams: the
// transport hands datagrams to the inbox itself.
func (d *delegate) NotifyMsg(b []byte) { d.inbox.add(netip.AddrPort{}, b) }

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(int) []byte { return nil }

// GetBroadcasts implements memberlist.Delegate: its queue is not used (G3).
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState([]byte, bool) {}
