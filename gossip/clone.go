package gossip

import (
	"fmt"
	"net/netip"
	"time"

	"meshd/state"
)

// duplicate is what the core knows of another node with its name (S7).
type duplicate struct {
	addr         netip.AddrPort // where the other may be
	nonce        uint64         // of the last challenge; 0: none
	challengedAt time.Duration  // when that was sent
	answeredAt   time.Duration  // when we last answered a challenge

	proven    bool   // the other has proven that it lives
	boot      uint64 // its boot id
	lastProof time.Duration
}

// The pace of challenges. Packets that carry our name cost no more than that,
// whoever sends them.
const (
	challengeInterval = time.Second
	answerInterval    = 100 * time.Millisecond
	challengeFor      = 5 * time.Second  // an answer is worth something for that long
	yieldFor          = 30 * time.Second // without an answer: the other is gone
	tieWindow         = 2 * time.Second  // started so close together: the lower boot id was first
)

// receiveFromSelf handles a packet from our own name: an echo of ours, the tail of
// our former life, another live node, or somebody who says to be one. A packet
// proves nothing, since anybody can write a name and a boot id into it: only
// the answer to a challenge does, at the address where the other is said to be.
func (c *Core) receiveFromSelf(boot uint64, frames []byte) {
	if boot == c.cfg.Boot {
		return
	}
	typ, p, _, err := nextFrame(frames)
	if err != nil {
		return
	}
	f, err := decodePing(p)
	if err != nil {
		f = pingFrame{}
	}
	other := &c.other
	switch {
	case typ == frameAck && f.nonce != 0 && f.nonce == other.nonce && c.now-other.challengedAt <= challengeFor:
		other.nonce = 0
		c.decideName(boot, f)
		return
	case typ == framePing && c.usableAddr(f.addr):
		if other.answeredAt == 0 || c.now-other.answeredAt >= answerInterval {
			other.answeredAt = max(c.now, 1)
			e := c.newPacket()
			e.ping(frameAck, pingFrame{nonce: f.nonce, target: c.cfg.Self, addr: c.cfg.Addr, up: c.now, yielded: c.yielded})
			c.sendTo(c.cfg.Self, f.addr, e)
		}
		c.challenge(f.addr)
	case other.addr.IsValid():
		c.challenge(other.addr)
	}
}

// challenge challenges whoever is said to have our name at addr.
func (c *Core) challenge(addr netip.AddrPort) {
	other := &c.other
	if !c.usableAddr(addr) || addr == c.cfg.Addr || other.challengedAt > 0 && c.now-other.challengedAt < challengeInterval {
		return
	}
	other.addr, other.nonce, other.challengedAt = addr, c.newNonce(), max(c.now, 1)
	e := c.newPacket()
	e.ping(framePing, pingFrame{nonce: other.nonce, target: c.cfg.Self, addr: c.cfg.Addr})
	c.sendTo(c.cfg.Self, addr, e)
}

// decideName decides who keeps the name, now that the other has proven that it
// lives: the one that has it, if only one does; else the one that has been
// running longer, by the monotonic clock of each; clocks of the wall do not
// count, unless the two started within two seconds (S7, S8).
func (c *Core) decideName(boot uint64, f pingFrame) {
	other := &c.other
	yield := f.up > c.now
	switch {
	case f.yielded != c.yielded:
		yield = c.yielded
	case (f.up - c.now).Abs() < tieWindow:
		yield = boot < c.cfg.Boot
	}
	news := !other.proven || other.boot != boot || c.yielded != yield
	other.proven, other.boot, other.lastProof = true, boot, c.now
	if news {
		who := "this node has been running longer and keeps the name; rename the other"
		if yield {
			who = "the other has been running longer: this node publishes nothing until it is renamed or the other is gone"
		}
		c.emit(Event{
			Kind: EventDuplicate, Node: c.cfg.Self,
			Reason: fmt.Sprintf("another live node is named %q (at %v, boot %x): %s", c.cfg.Self, other.addr, boot, who),
		})
	}
	switch {
	case yield && !c.yielded:
		c.yielded = true
		c.store.SetYielded(true)
	case !yield && c.yielded:
		c.reclaimName()
	}
}

// watchDuplicate asks the other again, and takes the name back when nothing was
// heard of it for a while.
func (c *Core) watchDuplicate() {
	other := &c.other
	if !other.proven {
		return
	}
	if c.now-other.lastProof < yieldFor {
		if c.now-other.lastProof >= challengeInterval {
			c.challenge(other.addr)
		}
		return
	}
	*other = duplicate{}
	c.emit(Event{Kind: EventDuplicate, Node: c.cfg.Self})
	if c.yielded {
		c.reclaimName()
	}
}

// reclaimName makes this node speak under its name again.
func (c *Core) reclaimName() {
	c.yielded = false
	c.store.SetYielded(false)
	seen := c.store.Incarnation()
	for _, t := range c.store.Tables() {
		h, _ := t.Head(c.cfg.Self)
		seen = max(seen, h.Inc) // the other's: what is put on disk is above it
	}
	c.reincarnate(seen)
	c.restateNetworks()
}

// restateNetworks states the networks that this node takes part in, and no others:
// what its stream says of it after another had its name is what the other said (S7).
func (c *Core) restateNetworks() {
	if c.Left() {
		return
	}
	var changes []state.Change
	for _, e := range c.store.Global().Own(state.KindMember) {
		if c.networks[e.Key()] == nil {
			changes = append(changes, state.Change{Kind: state.KindMember, Key: e.Key(), Delete: true})
		}
	}
	for _, name := range c.order {
		if name != "" {
			changes = append(changes, state.Change{Kind: state.KindMember, Key: name})
		}
	}
	if err := c.Commit(c.now, "", changes); err != nil {
		c.reportRefusal(c.cfg.Self, fmt.Errorf("state the networks that this node takes part in: %w", err))
	}
}

// Yielded reports whether this node publishes nothing because another live
// node has its name (S7).
func (c *Core) Yielded() bool { return c.yielded }
