package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// Event is something that the layer above wants to know.
type Event struct {
	Kind   EventKind
	Node   state.NodeID
	Addr   netip.AddrPort
	Call   Call
	Stamp  time.Duration // of EventBeacon: the sender's wall clock
	Reason string

	Network string // of EventExhausted
}

// EventKind tells events apart.
type EventKind uint8

// The events of a Core.
const (
	EventAlive   EventKind = iota + 1 // an owner is served again
	EventSuspect                      // its death is being checked
	EventDead                         // its endpoints are hidden
	EventLeft                         // it left in order
	EventRejoin                       // the membership should join Addr: a node it lost answers
	EventMoved                        // a node answers at Addr, and not where the membership lists it
	// another live node has our name, and Reason says who yields; no Reason: it is gone
	EventDuplicate
	EventBeacon      // Stamp arrived from Node
	EventCall        // a request of a peer's host
	EventReply       // the answer to one of ours
	EventRefused     // a peer's delta was refused: Reason
	EventReincarnate // our incarnation is now higher: persist it
	EventPreserve    // self-preservation went on or off (S12)
	EventExhausted   // other services than before got no VIP (V7): Reason; "" when all have one
	EventPanic       // a step of the protocol panicked and was dropped: Reason (G12)
)

// Call is a request or an answer between the hosts of two nodes.
type Call struct {
	ID   uint64
	Op   string
	Body []byte
}
