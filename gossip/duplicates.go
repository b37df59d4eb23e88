package gossip

import (
	"fmt"
	"net/netip"
	"time"

	"meshd/state"
)

// Another live node with this node's name (S7): how it is challenged, who of the
// two keeps the name, and how it is taken back. This file owns what is known of
// the other node.

// duplicates finds out about another live node with this node's name, and decides
// which of the two keeps it.
type duplicates struct {
	*env
	outbox      *outbox
	nets        *nets
	incarnation *incarnation
	own         committer

	other duplicate
}

// committer writes this node's own stream.
type committer interface {
	Commit(now time.Duration, network string, changes []state.Change) error
}

// duplicate is what is known of another node with this node's name (S7).
type duplicate struct {
	addr         netip.AddrPort // where it may be
	nonce        uint64         // of the last challenge; 0: none is open
	challengedAt time.Duration  // when that was sent
	answeredAt   time.Duration  // when this node last answered a challenge

	proven    bool          // it has proven that it lives
	boot      uint64        // its boot id
	lastProof time.Duration // when it last proved it
}

// The pace of challenges. Packets that carry this node's name cost no more than
// that, whoever sends them.
const (
	challengeInterval = time.Second
	answerInterval    = 100 * time.Millisecond
	challengeFor      = 5 * time.Second  // how long an answer counts
	yieldFor          = 30 * time.Second // without an answer for so long, the other node is gone
	tieWindow         = 2 * time.Second  // of two that started within it, the lower boot id was first
)

// receiveFromSelf handles a packet in this node's own name: an echo, the tail of
// its former life, another live node, or an impostor. A packet proves nothing,
// since anybody can write a name and a boot id into it. Only the answer to a
// challenge does, sent to the address where the other node is said to be.
func (d *duplicates) receiveFromSelf(boot uint64, frames []byte) {
	if boot == d.cfg.Boot {
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
	other := &d.other
	switch {
	case typ == frameAck && f.nonce != 0 && f.nonce == other.nonce && d.now-other.challengedAt <= challengeFor:
		other.nonce = 0
		d.decideName(boot, f)
		return
	case typ == framePing && d.usableAddr(f.addr):
		if other.answeredAt == 0 || d.now-other.answeredAt >= answerInterval {
			other.answeredAt = max(d.now, 1)
			e := d.newPacket()
			e.ping(frameAck, pingFrame{nonce: f.nonce, target: d.cfg.Self, addr: d.cfg.Addr, up: d.now, yielded: d.yielded})
			d.outbox.sendTo(d.cfg.Self, f.addr, e)
		}
		d.challenge(f.addr)
	case other.addr.IsValid():
		d.challenge(other.addr)
	}
}

// challenge challenges the node that is said to have this node's name at addr.
func (d *duplicates) challenge(addr netip.AddrPort) {
	other := &d.other
	asked := other.challengedAt > 0 && d.now-other.challengedAt < challengeInterval
	if !d.usableAddr(addr) || addr == d.cfg.Addr || asked {
		return
	}
	other.addr, other.nonce, other.challengedAt = addr, d.newNonce(), max(d.now, 1)
	e := d.newPacket()
	e.ping(framePing, pingFrame{nonce: other.nonce, target: d.cfg.Self, addr: d.cfg.Addr})
	d.outbox.sendTo(d.cfg.Self, addr, e)
}

// decideName decides who keeps the name, once the other node has proven that it
// lives. If only one of the two has the name, that one keeps it; else the one
// that has been running longer, by the monotonic clock of each. Wall clocks do
// not count, unless the two started within two seconds of each other (S7, S8).
func (d *duplicates) decideName(boot uint64, f pingFrame) {
	other := &d.other
	yield := f.up > d.now
	switch {
	case f.yielded != d.yielded:
		yield = d.yielded
	case (f.up - d.now).Abs() < tieWindow:
		yield = boot < d.cfg.Boot
	}
	news := !other.proven || other.boot != boot || d.yielded != yield
	other.proven, other.boot, other.lastProof = true, boot, d.now
	if news {
		who := "this node has been running longer and keeps the name; rename the other"
		if yield {
			who = "the other has been running longer: this node publishes nothing until it is renamed or the other is gone"
		}
		d.outbox.emit(Event{
			Kind: EventDuplicate, Node: d.cfg.Self,
			Reason: fmt.Sprintf("another live node is named %q (at %v, boot %x): %s", d.cfg.Self, other.addr, boot, who),
		})
	}
	switch {
	case yield && !d.yielded:
		d.yielded = true
		d.store.SetYielded(true)
	case !yield && d.yielded:
		d.reclaimName()
	}
}

// watchDuplicate challenges the other node again, and takes the name back when it
// has not answered for a while.
func (d *duplicates) watchDuplicate() {
	other := &d.other
	if !other.proven {
		return
	}
	if d.now-other.lastProof < yieldFor {
		if d.now-other.lastProof >= challengeInterval {
			d.challenge(other.addr)
		}
		return
	}
	*other = duplicate{}
	d.outbox.emit(Event{Kind: EventDuplicate, Node: d.cfg.Self})
	if d.yielded {
		d.reclaimName()
	}
}

// reclaimName makes this node speak under its name again.
func (d *duplicates) reclaimName() {
	d.yielded = false
	d.store.SetYielded(false)
	seen := d.store.Incarnation()
	for _, t := range d.store.Tables() {
		h, _ := t.Head(d.cfg.Self)
		seen = max(seen, h.Inc) // maybe the other node's: the incarnation on disk must be above it
	}
	d.incarnation.start(seen)
	d.restateNetworks()
}

// restateNetworks writes in which networks this node takes part, and no others:
// after another node had its name, its stream says what the other one wrote (S7).
func (d *duplicates) restateNetworks() {
	if d.left() {
		return
	}
	var changes []state.Change
	for _, e := range d.store.Global().Own(state.KindMember) {
		if d.nets.byName[e.Key()] == nil {
			changes = append(changes, state.Change{Kind: state.KindMember, Key: e.Key(), Delete: true})
		}
	}
	for _, name := range d.nets.order {
		if name != "" {
			changes = append(changes, state.Change{Kind: state.KindMember, Key: name})
		}
	}
	if err := d.own.Commit(d.now, "", changes); err != nil {
		d.outbox.reportRefusal(d.cfg.Self, fmt.Errorf("state the networks that this node takes part in: %w", err))
	}
}
