package gossip

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"meshd/state"
)

// The doors of a core for its own stream: what this node writes, in which
// networks it takes part, and how it leaves. Only this file writes records that
// the layer above states; claims are written by claims.

// ErrNoNetwork is returned for a network in which this node does not take part.
var ErrNoNetwork = errors.New("this node does not take part in the network")

// Commit writes changes to this node's own stream in a network ("" is the global
// scope) and pushes them (S1, G3). Claims that follow from them are written in
// the same step. After an error nothing was written.
func (c *Core) Commit(now time.Duration, name string, changes []state.Change) error {
	c.advance(now)
	n := c.nets.byName[name]
	if n == nil {
		return fmt.Errorf("network %q: %w", name, ErrNoNetwork)
	}
	_, err := n.table.Commit(changes)
	if err != nil {
		return err
	}
	if n.carrier != nil {
		c.claims.carry(n)
	}
	c.push.pushOwn(n)
	c.finishStep()
	return nil
}

// Host states what this node does for a service, which decides whether the node
// carries the service's claim and settings (V2). The caller calls Commit
// afterwards.
func (c *Core) Host(name, service string, h state.Hosting) {
	n := c.nets.byName[name]
	if n == nil || n.carrier == nil {
		return
	}
	if h.Tasks == 0 && h.Until == 0 {
		if n.carrier.Services[service] == nil {
			return
		}
		h.Until = c.now + c.cfg.Reservation
	}
	n.carrier.Services[service] = &h
}

// SetReservation changes how long the claim of a service without tasks is kept.
// It holds for services that lose their last task from now on.
func (c *Core) SetReservation(d time.Duration) { c.cfg.Reservation = d }

// JoinNetwork makes the node take part in a network (G6) and asks participants
// for its table.
func (c *Core) JoinNetwork(now time.Duration, name string) error {
	c.advance(now)
	if c.nets.byName[name] != nil {
		return nil
	}
	if err := errors.Join(state.CheckName(name), c.nets.checkHash(name)); err != nil {
		return err
	}
	if c.nets.parted[name] {
		c.store.Renew()
		c.outbox.emit(Event{Kind: EventReincarnate})
	}
	n := c.nets.add(name, c.store.Join(name))
	for _, m := range c.roster.members {
		m.retired = inService // their streams in this network are put away again
	}
	if c.roster.living(name).Len() == 0 && (c.roster.alone() || c.store.Global().View().Synced()) {
		n.table.SetSynced() // no other node takes part: there is nothing to ask for
	}
	err := c.Commit(c.now, "", []state.Change{{Kind: state.KindMember, Key: name}})
	c.fetch.request(n)
	c.finishStep()
	return err
}

// LeaveNetwork ends the node's part in a network: its own stream there becomes an
// empty snapshot, and its copy of the table is dropped.
func (c *Core) LeaveNetwork(now time.Duration, name string) error {
	c.advance(now)
	n := c.nets.byName[name]
	if n == nil || name == "" {
		return nil
	}
	c.retireOwn(n)
	c.push.flushNow()
	err := c.Commit(c.now, "", []state.Change{{Kind: state.KindMember, Key: name, Delete: true}})
	c.claims.schedule(n, 0)
	c.nets.remove(name)
	c.pull.dropNetwork(name)
	c.store.Leave(name)
	c.roster.forgetNetwork(name)
	c.nets.parted[name] = true
	return err
}

// Leave writes and pushes the last, empty snapshot of every own stream (S9).
func (c *Core) Leave(now time.Duration) {
	c.advance(now)
	for _, name := range slices.Backward(c.nets.order) {
		c.retireOwn(c.nets.byName[name])
	}
	c.push.flushNow()
	if c.leftAt == 0 {
		c.leftAt = max(c.now, 1)
	}
}

// Left reports whether this node has said goodbye. What it wrote afterwards would
// bring it back.
func (c *Core) Left() bool { return c.left() }

// retireOwn writes the last, empty snapshot of the own stream in a network.
func (c *Core) retireOwn(n *network) {
	if h, ok := n.table.Head(c.cfg.Self); !ok || h.Version == 0 {
		return
	}
	n.table.Leave()
	n.pushed = 0
	c.push.pushOwn(n)
}

// sweptNetworks is in how many networks a sweep looks for old tombstones; in more, it
// looks in turn.
const sweptNetworks = 256

// sweepTombstones forgets old tombstones in some networks.
func (c *Core) sweepTombstones() {
	order := c.nets.order
	for range min(len(order), sweptNetworks) {
		c.sweptNet %= len(order)
		c.forgetTombstones(c.nets.byName[order[c.sweptNet]])
		c.sweptNet++
	}
}

// forgetTombstones raises the floor of the own stream in a network by age (S6).
func (c *Core) forgetTombstones(n *network) {
	h, ok := n.table.Head(c.cfg.Self)
	if !ok {
		return
	}
	if len(n.versionTimes) == 0 || n.versionTimes[len(n.versionTimes)-1].version < h.Version {
		n.versionTimes = append(n.versionTimes, versionTime{c.now, h.Version})
	}
	old := uint64(0)
	for len(n.versionTimes) > 1 && c.now-n.versionTimes[0].at > c.cfg.TombstoneAge {
		old, n.versionTimes = n.versionTimes[0].version, n.versionTimes[1:]
	}
	if len(n.versionTimes) == 1 && c.now-n.versionTimes[0].at > c.cfg.TombstoneAge {
		old = n.versionTimes[0].version
	}
	if len(n.versionTimes) > 1024 { // bounded: most of the older ones go
		n.versionTimes = slices.Delete(n.versionTimes, 1, 512)
	}
	if old > 0 && n.table.Forget(old) {
		c.push.recordNews(n, c.cfg.Self)
	}
}

// Yielded reports whether this node publishes nothing because another live node
// has its name (S7).
func (c *Core) Yielded() bool { return c.yielded }
