package gossip

import (
	"net/netip"
	"time"

	"meshd/state"
)

// This file is what a core reports to the layer above.

// Event is something that the layer above wants to know. Kind says which of the other
// fields are set.
type Event struct {
	Kind    EventKind
	Node    state.NodeID   // whom it is about, or who sent it
	Addr    netip.AddrPort // where that node is
	Call    Call           // of EventCall and EventReply
	Stamp   time.Duration  // of EventBeacon: the sender's wall clock
	Reason  string         // a sentence for people
	Network string         // of EventExhausted
}

// EventKind is what an Event is about.
type EventKind uint8

// The events of a Core.
const (
	EventAlive   EventKind = iota + 1 // an owner is served again
	EventSuspect                      // its death is being checked
	EventDead                         // its endpoints are hidden
	EventLeft                         // it left in order
	EventRejoin                       // a node that the membership lost answers at Addr: it should be joined
	EventMoved                        // a node answers at Addr, and not where the membership lists it
	// Another live node has this node's name, and Reason says which yields; without Reason it is gone.
	EventDuplicate
	EventBeacon      // Stamp arrived from Node; from this node: the core asks the host to write one
	EventCall        // a request of a peer's host
	EventReply       // the answer to a request of this host
	EventRefused     // a peer's delta was refused: Reason
	EventReincarnate // this node's incarnation is higher now: persist it
	EventPreserve    // self-preservation went on or off (S12)
	EventExhausted   // Reason says which services got no VIP (V7); "" when all have one
	EventPanic       // a step of the protocol panicked and was dropped (G12)
)

// Call is a request or an answer between the hosts of two nodes.
type Call struct {
	ID   uint64 // chosen by who asks; the answer repeats it
	Op   string // which handler it is for
	Body []byte
}
