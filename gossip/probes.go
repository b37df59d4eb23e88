package gossip

import (
	"slices"

	"meshd/state"
)

// This file sends the hashes of tables to peers, in as few datagrams as they fit.
// It owns nothing but that packet.

// probes sends hashes of tables.
type probes struct {
	*env
	roster   *roster
	outbox   *outbox
	liveness deliveryObserver
}

// deliveryObserver reports to which members datagrams do not seem to arrive.
type deliveryObserver interface {
	undelivered(m *member) bool
}

// shared returns the first of some networks and up to room of them in all that a
// peer takes part in, and the rest.
func (p *probes) shared(to state.NodeID, from []*network, room int) (ns, rest []*network) {
	for i, n := range from {
		if len(ns) >= room {
			return ns, append(rest, from[i:]...)
		}
		if i == 0 || p.cfg.Peers != nil || p.roster.takesPart(to, n.name) {
			ns = append(ns, n)
		} else {
			rest = append(rest, n)
		}
	}
	return ns, rest
}

// perDatagram is how many networks' hashes fit a datagram.
func (p *probes) perDatagram() int {
	return max(1, min(maxProbed, (p.cfg.Datagram-len(p.newPacket().b)-8)/probedSize))
}

// send sends a peer the hashes of networks, in as few datagrams as they fit.
func (p *probes) send(to state.NodeID, ns []*network) {
	m := p.roster.members[to]
	lost := m != nil && m.listed && (p.roster.deaf() || p.liveness.undelivered(m))
	if lost {
		m.streamUntil = p.now + streamsOnlyFor
	}
	for part := range slices.Chunk(ns, p.perDatagram()) {
		// A peer that asked for streams is not asked for them in turn: two nodes would
		// hold each other to streams for ever.
		f := probeFrame{stream: lost, ack: p.roster.usesStream(to)}
		for _, n := range part {
			n.probedAt = p.now
			if !n.table.View().Synced() {
				n.answerDue = p.now + fetchPatience
			}
			t := tableHash{n.hash, n.table.Hash()}
			if n.name == "" {
				f.tables = slices.Insert(f.tables, 0, t) // it is shortest there
			} else {
				f.tables = append(f.tables, t)
			}
			f.ack = f.ack || !n.table.View().Synced()
		}
		e := p.newPacket()
		e.probe(frameProbe, f)
		p.Stats.Probes++
		p.outbox.send(to, e)
	}
}
