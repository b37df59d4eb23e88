package gossip

import (
	"fmt"
	"slices"
	"time"

	"meshd/state"
)

// Requests and answers between the hosts of two nodes, which the core only
// carries. host's side of them is calls.go.

// Call sends a request of the layer above to a peer. Its answer comes as
// EventReply.
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

// maxCall bounds the body of a request or an answer, in bytes.
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
