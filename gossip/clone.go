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
	yielded   bool
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
	d := &c.other
	switch {
	case typ == frameAck && f.nonce != 0 && f.nonce == d.nonce && c.now-d.challengedAt <= challengeFor:
		d.nonce = 0
		c.decideName(boot, f)
		return
	case typ == framePing && c.usableAddr(f.addr):
		if d.answeredAt == 0 || c.now-d.answeredAt >= answerInterval {
			d.answeredAt = max(c.now, 1)
			e := c.newPacket()
			e.ping(frameAck, pingFrame{nonce: f.nonce, target: c.cfg.Self, addr: c.cfg.Addr, up: c.now, yielded: d.yielded})
			c.sendTo(c.cfg.Self, f.addr, e)
		}
		c.challenge(f.addr)
	case d.addr.IsValid():
		c.challenge(d.addr)
	}
}

// challenge challenges whoever is said to have our name at addr.
func (c *Core) challenge(addr netip.AddrPort) {
	d := &c.other
	if !c.usableAddr(addr) || addr == c.cfg.Addr || d.challengedAt > 0 && c.now-d.challengedAt < challengeInterval {
		return
	}
	d.addr, d.nonce, d.challengedAt = addr, c.newNonce(), max(c.now, 1)
	e := c.newPacket()
	e.ping(framePing, pingFrame{nonce: d.nonce, target: c.cfg.Self, addr: c.cfg.Addr})
	c.sendTo(c.cfg.Self, addr, e)
}

// decideName decides who keeps the name, now that the other has proven that it
// lives: the one that has it, if only one does; else the one that has been
// running longer, by the monotonic clock of each; clocks of the wall do not
// count, unless the two started within two seconds (S7, S8).
func (c *Core) decideName(boot uint64, f pingFrame) {
	d := &c.other
	yield := f.up > c.now
	switch {
	case f.yielded != d.yielded:
		yield = d.yielded
	case (f.up - c.now).Abs() < tieWindow:
		yield = boot < c.cfg.Boot
	}
	news := !d.proven || d.boot != boot || d.yielded != yield
	d.proven, d.boot, d.lastProof = true, boot, c.now
	if news {
		who := "this node has been running longer and keeps the name; rename the other"
		if yield {
			who = "the other has been running longer: this node publishes nothing until it is renamed or the other is gone"
		}
		c.emit(Event{
			Kind: EventDuplicate, Node: c.cfg.Self,
			Reason: fmt.Sprintf("another live node is named %q (at %v, boot %x): %s", c.cfg.Self, d.addr, boot, who),
		})
	}
	switch {
	case yield && !d.yielded:
		d.yielded = true
		c.store.SetYielded(true)
	case !yield && d.yielded:
		c.reclaimName()
	}
}

// watchDuplicate asks the other again, and takes the name back when nothing was
// heard of it for a while.
func (c *Core) watchDuplicate() {
	d := &c.other
	if !d.proven {
		return
	}
	if c.now-d.lastProof < yieldFor {
		if c.now-d.lastProof >= challengeInterval {
			c.challenge(d.addr)
		}
		return
	}
	yielded := d.yielded
	*d = duplicate{yielded: yielded}
	c.emit(Event{Kind: EventDuplicate, Node: c.cfg.Self})
	if yielded {
		c.reclaimName()
	}
}

// reclaimName makes this node speak under its name again.
func (c *Core) reclaimName() {
	c.other.yielded = false
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
func (c *Core) Yielded() bool { return c.other.yielded }
