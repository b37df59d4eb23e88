package gossip

import (
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/serf/coordinate"

	"meshd/state"
)

// This file owns network coordinates: they estimate the round trip time between any two
// nodes, for nearest.<service> and meshctl node ls. They travel in memberlist's ping
// acknowledgements.

// coordinates holds where this node and the listed nodes are. Safe for concurrent use.
type coordinates struct {
	self   state.NodeID
	client *coordinate.Client // of this node's own

	mu sync.Mutex // guards of
	of map[state.NodeID]*coordinate.Coordinate
}

func newCoordinates(self state.NodeID) (*coordinates, error) {
	client, err := coordinate.NewClient(coordinate.DefaultConfig())
	if err != nil {
		return nil, err
	}
	return &coordinates{self: self, client: client, of: map[state.NodeID]*coordinate.Coordinate{}}, nil
}

// update takes a sample of the way to a node.
func (cs *coordinates) update(id state.NodeID, c *coordinate.Coordinate, rtt time.Duration) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	_, _ = cs.client.Update(string(id), c, rtt) // a bad sample is ignored
	cs.of[id] = c
}

// forget forgets a node.
func (cs *coordinates) forget(id state.NodeID) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.of, id)
	cs.client.ForgetNode(string(id))
}

// rtt estimates the round trip time to a node.
func (cs *coordinates) rtt(id state.NodeID) (time.Duration, bool) {
	if id == cs.self {
		return 0, true
	}
	cs.mu.Lock()
	c := cs.of[id]
	cs.mu.Unlock()
	if c == nil {
		return 0, false
	}
	return cs.client.DistanceTo(c), true
}

// encode returns this node's coordinate as peers read it.
func (cs *coordinates) encode() []byte {
	c := cs.client.GetCoordinate()
	b := make([]byte, 0, 8*(len(c.Vec)+3))
	for _, f := range append([]float64{c.Error, c.Adjustment, c.Height}, c.Vec...) {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
	}
	return b
}

// decodeCoordinate reads a coordinate, nil if it is none.
func decodeCoordinate(b []byte) *coordinate.Coordinate {
	c := coordinate.NewCoordinate(coordinate.DefaultConfig())
	if len(b) != 8*(len(c.Vec)+3) {
		return nil
	}
	at := func(i int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:])) }
	c.Error, c.Adjustment, c.Height = at(0), at(1), at(2)
	for i := range c.Vec {
		c.Vec[i] = at(i + 3)
	}
	if !c.IsValid() {
		return nil
	}
	return c
}

// RTT estimates the round trip time to a node; false if there is no sample of it yet.
func (h *Host) RTT(id state.NodeID) (time.Duration, bool) { return h.coords.rtt(id) }
