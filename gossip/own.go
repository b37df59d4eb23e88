package gossip

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// ErrNoNetwork is returned for a network that the node does not take part in.
var ErrNoNetwork = errors.New("this node does not take part in the network")

// Commit writes changes to this node's own stream in a network ("" is the
// global scope) and pushes them (S1, G3). Claims that follow are written in
// the same step. On an error nothing was written.
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
	} else {
		c.forgetTargets(changes)
	}
	c.push.pushOwn(n)
	c.finishStep()
	return nil
}

func (c *Core) forgetTargets(changes []state.Change) {
	for _, ch := range changes {
		if ch.Kind == state.KindMember {
			delete(c.roster.targets, ch.Key)
		}
	}
}

// Host says what this node does for a service: it decides which claims and
// settings the node carries (V2). Call Commit afterwards.
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

// SetReservation replaces how long the claim of a service without tasks is kept, for
// services that lose their last task from now on.
func (c *Core) SetReservation(d time.Duration) { c.cfg.Reservation = d }

// carryRest is how long a node rests from its claims per claim that it has
// looked at, some twenty times what the look takes: whoever changes a claim with
// each packet must not make the others look at all of theirs with each.
const (
	carryRest        = 20 * time.Microsecond
	carryWithoutRest = 64 // claims: no rest
)

// carrySoon is carry after claims of others changed: at once, unless it was done
// just now and took long.
func (k *claims) carrySoon(n *network) {
	if k.now >= n.carryNotBefore {
		k.carry(n)
		return
	}
	k.Stats.CarriesLater++
	if n.carryAt == 0 || n.carryAt > n.carryNotBefore {
		n.carryAt = n.carryNotBefore
	}
}

// carry brings the claims of the services hosted here in line with the table.
// A network that is not yet synced waits: its claims are older than ours would
// seem to be (V3).
func (k *claims) carry(n *network) {
	n.carryAt = 0
	if k.yielded {
		return
	}
	if !k.mayClaim(n) {
		n.carryAt = k.now + claimPatience/4
		return
	}
	k.Stats.Carries++
	n.carrier.Provisional = k.provisional(n)
	changes, again, failed := n.carrier.Carry(n.table, k.now)
	if again > 0 {
		n.carryAt = k.now + again
	}
	if work := n.carrier.Work; work > carryWithoutRest {
		n.carryNotBefore = k.now + time.Duration(work)*carryRest
	}
	changed, refused := n.table.CommitEach(changes)
	for key, err := range refused {
		failed[strings.TrimSuffix(key, "~")] = err
	}
	k.reportFailed(n, failed)
	if changed {
		n.table.TakeClaims()
		k.push.pushOwn(n)
	}
}

// reportFailed tells which services got no address, or could not state what they
// claim, in one line, when that changes.
func (k *claims) reportFailed(n *network, failed map[string]error) {
	text := ""
	if len(failed) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(failed)))
		text = fmt.Sprintf("%d services of this node have no VIP in network %s; first: %s: %v", len(failed), n.name, first,
			failed[first])
	}
	if text != n.reportedFailure {
		n.reportedFailure = text
		k.outbox.emit(Event{Kind: EventExhausted, Network: n.name, Reason: text})
	}
}

// claimPatience is how long a node that knows others waits for somebody whom it
// can ask for a network's claims, before it claims VIPs on its own.
const claimPatience = 2 * time.Second

// mayClaim reports whether this node may claim addresses in a network: it has
// seen the claims of the others, or there is nobody to ask. While a participant
// lives, or it is not yet known who takes part, it waits for as long as it takes,
// and the services are answered with their tasks (R5): our time, low as it is,
// would make our claim look older than the ones that we have not seen.
func (k *claims) mayClaim(n *network) bool {
	switch {
	case n.table.View().Synced(), k.roster.alone():
		return true
	case k.now < n.joinedAt+claimPatience, len(k.roster.living(n.name)) > 0:
		return false
	}
	return k.store.Global().View().Synced() || len(k.roster.living("")) == 0
}

// alone reports whether there is nobody to ask: nobody is known, and nobody
// was expected or they did not come.
func (r *roster) alone() bool {
	return len(r.members) == 0 && (!r.cfg.ExpectPeers || r.now > claimPatience)
}

// JoinNetwork makes the node take part in a network (G6) and asks its
// participants for the table.
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
		m.retired = 0 // what is new of them is put away, too
	}
	if len(c.roster.living(name)) == 0 && (c.roster.alone() || c.store.Global().View().Synced()) {
		n.table.SetSynced() // nobody else takes part: there is nothing to ask for
	}
	err := c.Commit(c.now, "", []state.Change{{Kind: state.KindMember, Key: name}})
	c.fetch.request(n)
	c.finishStep()
	return err
}

// LeaveNetwork ends the node's part in a network: its own stream there becomes
// an empty snapshot, and its table is dropped.
func (c *Core) LeaveNetwork(now time.Duration, name string) error {
	c.advance(now)
	n := c.nets.byName[name]
	if n == nil || name == "" {
		return nil
	}
	c.retireOwn(n)
	c.push.flushNow()
	err := c.Commit(c.now, "", []state.Change{{Kind: state.KindMember, Key: name, Delete: true}})
	c.nets.remove(name)
	c.pull.dropNetwork(name)
	c.store.Part(name)
	c.nets.parted[name] = true
	return err
}

// Leave makes the last, empty snapshot of every own stream (S9) and pushes it.
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

// speakAfterLeaving is how long a node that has left still speaks: its goodbye, which
// it repeats. What it said later would bring it back.
const speakAfterLeaving = 2 * time.Second

// Left reports whether this node has said goodbye: what it stated afterwards
// would bring it back.
func (c *Core) Left() bool { return c.left() }

// silenced reports whether this node has left, so that it must not speak.
func (e *env) silenced() bool { return e.leftAt > 0 && e.now-e.leftAt > speakAfterLeaving }

func (c *Core) retireOwn(n *network) {
	if h, ok := n.table.Head(c.cfg.Self); !ok || h.Version == 0 {
		return
	}
	n.table.Retire()
	n.pushed = 0
	c.push.pushOwn(n)
}

func (p *push) flushNow() {
	if p.queue.at > 0 {
		p.queue.at = p.now
		p.flush()
	}
}

// defend looks at what a peer holds of our own stream (S7).
func (i *incarnation) defend(n *network, h state.Head, buried bool) {
	if buried && n.table.SelfBuried(h) || n.table.SelfAhead(h) {
		i.needAbove(h.Inc)
	}
}

// Call sends a request of the layer above to a peer.
func (c *Core) Call(now time.Duration, to state.NodeID, call Call) { c.call(now, frameCall, to, call) }

// Reply answers a peer's request.
func (c *Core) Reply(now time.Duration, to state.NodeID, call Call) {
	c.call(now, frameReply, to, call)
}

func (c *Core) call(now time.Duration, typ byte, to state.NodeID, call Call) {
	c.advance(now)
	e := c.newPacket()
	e.call(typ, callFrame{id: call.ID, op: call.Op, body: call.Body})
	if typ != frameReply || c.outbox.affordReply(to, len(e.b)) {
		c.outbox.sendUnmetered(to, e)
	}
}

// maxCall bounds what a request or an answer of the layer above may say.
const maxCall = 256 << 10

func (c *Core) onCall(from state.NodeID, typ byte, p []byte) error {
	f, err := decodeCall(p)
	if err != nil {
		return err
	}
	if len(f.body) > maxCall {
		return fmt.Errorf("%w: a call of %d bytes", errWire, len(f.body))
	}
	kind := EventCall
	if typ == frameReply {
		kind = EventReply
	}
	c.outbox.emit(Event{Kind: kind, Node: from, Call: Call{ID: f.id, Op: f.op, Body: slices.Clone(f.body)}})
	return nil
}

// write writes a time stamp to the global scope now and then, so that every
// node measures propagation. The whole mesh shares one beacon per BeaconEvery.
func (b *beacons) write() {
	if b.cfg.BeaconEvery == 0 || b.now < b.at {
		return
	}
	period := b.cfg.BeaconEvery * time.Duration(b.roster.provenCount()+1)
	if b.at > 0 {
		b.outbox.emit(Event{Kind: EventBeacon, Node: b.cfg.Self})
	}
	b.at = b.now + b.jitter(period)
}

// beacons writes beacons.
type beacons struct {
	*env
	roster *roster
	outbox *outbox

	at time.Duration
}
