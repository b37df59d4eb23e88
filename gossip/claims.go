package gossip

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// This file owns when the claims of the services hosted here are brought in line
// with the tables (V2, V3, V11). What a claim says is state.Carrier's.

// claims brings the claims of the services hosted here in line with the tables.
type claims struct {
	*env
	roster *roster
	outbox *outbox
	nets   *nets
	push   publisher

	due          agenda[*network]      // those that are to be looked at by time
	provisionals map[*network]struct{} // those in which claims were provisional when they were last looked at
}

// schedule sets when the claims of a network are looked at; 0: not by time.
func (k *claims) schedule(n *network, at time.Duration) {
	if n.carryAt = at; at > 0 {
		k.due.put(n)
	} else {
		k.due.remove(n)
	}
}

// run looks at the claims that are due.
func (k *claims) run() {
	ns := k.due.due(k.now)
	slices.SortFunc(ns, func(a, b *network) int { return strings.Compare(a.name, b.name) })
	for _, n := range ns {
		k.carry(n)
	}
}

// publisher pushes what this node has written to its own stream of a network.
type publisher interface {
	pushOwn(n *network)
}

// A node rests from its claims for carryRest per claim that it has looked at,
// some twenty times as long as the look takes, if there were more than
// carryWithoutRest: a peer that changes a claim with each packet must not make
// the others look at all of theirs each time.
const (
	carryRest        = 20 * time.Microsecond
	carryWithoutRest = 64 // claims
)

// claimPatience is how long a node that knows others waits for one that it can
// ask for a network's claims, before it claims VIPs on its own.
const claimPatience = 2 * time.Second

// aloneFor is how long a node that expects no others must have been alone until
// its claims count like any other's: a mesh of one node is a mesh.
const aloneFor = 5 * time.Minute

// carrySoon is carry after claims of others changed: at once, unless it has just
// been done and took long.
func (k *claims) carrySoon(n *network) {
	if k.now >= n.carryNotBefore {
		k.carry(n)
		return
	}
	k.Stats.CarriesLater++
	if n.carryAt == 0 || n.carryAt > n.carryNotBefore {
		k.schedule(n, n.carryNotBefore)
	}
}

// carry brings the claims of the services hosted here in line with the table. In
// a network that is not yet synced it waits: the claims there are older than this
// node's would seem to be (V3).
func (k *claims) carry(n *network) {
	k.schedule(n, 0)
	if k.yielded {
		return
	}
	if !k.mayClaim(n) {
		k.schedule(n, k.now+claimPatience/4)
		return
	}
	k.Stats.Carries++
	if n.carrier.Provisional = k.provisional(n); n.carrier.Provisional {
		k.provisionals[n] = struct{}{}
	}
	changes, again, failed := n.carrier.Carry(n.table, k.now)
	if again > 0 {
		k.schedule(n, k.now+again)
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

// reportFailed emits one event that says which services got no address, or could
// not state what they claim, whenever that changes.
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

// mayClaim reports whether this node may claim addresses in a network: it has
// seen the claims of the others, or there is no other to ask. While a participant
// lives, or it is not known who takes part, it waits as long as it takes, and the
// services are answered with their tasks (R5): this node's Lamport time, low as
// it is, would make its claims look older than those that it has not seen.
func (k *claims) mayClaim(n *network) bool {
	switch {
	case n.table.View().Synced(), k.roster.alone():
		return true
	case k.now < n.joinedAt+claimPatience, k.roster.living(n.name).Len() > 0:
		return false
	}
	return k.store.Global().View().Synced() || k.roster.living("").Len() == 0
}

// provisional reports whether what this node claims in a network is provisional,
// because there may be claims that it does not know: it has compared the network
// with no other node, and others take part, or it does not know who does (V11).
func (k *claims) provisional(n *network) bool {
	switch {
	case n.compared, k.cfg.Peers != nil:
		return false
	case !k.nets.byName[""].compared:
		return !k.roster.alone() || k.cfg.ExpectPeers || k.now-n.joinedAt < aloneFor
	}
	for _, id := range k.store.Participants(n.name) {
		if id != k.cfg.Self {
			return true
		}
	}
	return false
}

// reviseProvisional looks at the claims again in networks where they are no
// longer provisional.
func (k *claims) reviseProvisional() {
	for n := range k.provisionals {
		switch {
		case k.nets.byName[n.name] != n || !n.carrier.Provisional:
			delete(k.provisionals, n)
		case !k.provisional(n):
			k.schedule(n, max(k.now, 1))
		}
	}
}
