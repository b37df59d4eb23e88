package gossip

import (
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// pair is two cores that hear each other by datagrams, and whatever they send over
// streams.
type pair struct {
	cores map[state.NodeID]*Core
	addrs map[state.NodeID]netip.AddrPort
	now   time.Duration
	last  time.Duration // when the last packet was sent over a stream
}

func newPair(t *testing.T) *pair {
	p := &pair{cores: map[state.NodeID]*Core{}, addrs: map[state.NodeID]netip.AddrPort{}, now: time.Second}
	for i, id := range []state.NodeID{"a", "b"} {
		p.cores[id] = testCore(t, id)
		p.cores[id].cfg.Probing = 200 * time.Millisecond
		p.addrs[id] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), 7946)
	}
	p.cores["a"].MemberAlive(p.now, "b", p.addrs["b"])
	p.cores["b"].MemberAlive(p.now, "a", p.addrs["a"])
	return p
}

// run lets the two talk until a moment. The membership's own probes are datagrams,
// and are answered.
func (p *pair) run(until time.Duration) {
	for ; p.now < until; p.now += 50 * time.Millisecond {
		for id, c := range p.cores {
			other := state.NodeID("b")
			if id == "b" {
				other = "a"
			}
			c.MemberReached(p.now, other, p.addrs[other])
			c.Tick(p.now)
			sends, _ := c.Drain()
			for _, s := range sends {
				switch {
				case s.To != other:
				case s.Reliable:
					p.last = p.now
					p.cores[other].Receive(p.now, s.Data)
				default:
					p.cores[other].ReceiveFrom(p.now, p.addrs[id], s.Data)
				}
			}
		}
	}
}

// TestForgedWishForStreams: G5. One probe in a peer's name that asks for streams
// has two nodes talk over streams for a while, not for ever: neither asks the
// other for what was asked of it, and what arrives as a datagram is heard.
func TestForgedWishForStreams(t *testing.T) {
	p := newPair(t)
	p.run(3 * time.Second)
	for ; p.now < time.Minute; p.run(p.now + time.Second) {
		for id, c := range p.cores {
			forged := newEncoder(map[state.NodeID]state.NodeID{"a": "b", "b": "a"}[id], 1)
			forged.probe(frameProbe, probeFrame{stream: true})
			c.Receive(p.now, forged.b)
		}
	}
	if p.last < p.now-time.Second {
		t.Fatal("the forged wish is not granted: this test shows nothing")
	}
	asked := p.now
	p.run(3 * time.Minute)
	if p.last > asked+2*streamsOnlyFor {
		t.Errorf("%v after the last forged wish packets still go over streams", p.last-asked)
	}
	for id, c := range p.cores {
		if !c.roster.hearing() {
			t.Errorf("%s takes itself for deaf", id)
		}
	}
}

// TestDatagramsAreHeard: G5. A packet of a peer that is held to streams tells that
// datagrams arrive if it is one itself, and not if it came over a stream.
func TestDatagramsAreHeard(t *testing.T) {
	c := testCore(t, "a", "b")
	c.roster.members["b"].streamUntil = time.Minute
	c.Receive(2*time.Second, newEncoder("b", 1).b)
	if c.roster.hearing() {
		t.Error("what came over a stream counts as a datagram")
	}
	c.ReceiveFrom(2*time.Second, netip.MustParseAddrPort("10.9.0.0:7946"), newEncoder("b", 1).b)
	if !c.roster.hearing() {
		t.Error("a datagram does not count")
	}
}
