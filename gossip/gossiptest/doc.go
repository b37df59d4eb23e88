// Package gossiptest makes packets that no honest node sends: a grammar of the
// wire (S15) with hostile numbers in it. Random bytes do not find what a count
// of ceil(2^64/13) does; a packet that is right but for that number does.
//
//	for p := range gossiptest.Packets(seed, world) { core.Receive(now, p) }
//
// Writer is the encoder for a packet of one's own: it checks nothing. What
// carries packets between real daemons is in carrier.go.
//
// It knows the wire from its description alone, not from package gossip, so that
// a fault of the one is not a fault of the other.
package gossiptest
