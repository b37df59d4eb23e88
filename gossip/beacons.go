package gossip

import "time"

// This file owns when this node writes a time stamp, by which every node measures
// how long a change takes.

// beacons writes time stamps to the global scope.
type beacons struct {
	*env
	roster *roster
	outbox *outbox

	at time.Duration // when the next one is due; 0: never written
}

// write makes the layer above write a time stamp to the global scope now and
// then, so that every node measures propagation. The whole mesh shares one beacon
// per BeaconEvery.
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
