package gossip

import (
	"fmt"
	"net/netip"

	"meshd/state"
)

// This file owns what leaves a core: packets and events wait here until Drain.
// Every packet that another's packet causes passes the budgets of budgets.go.

// outbox is what leaves the core: packets and events, with the budgets of those that
// a peer's packet causes.
//
// Invariant: sendBytes is the sum of len(Data) over sends, at most maxSendBytes.
type outbox struct {
	*env
	roster *roster

	budgets   answerBudgets
	sends     []Send // at most maxSends
	sendBytes int
	events    []Event // at most maxEvents, but for news of members
}

// send queues a packet; one that is too long for a datagram goes over a stream
// (G5). If a peer's packet causes it, that packet's budget pays, and send drops
// what is over it.
func (o *outbox) send(to state.NodeID, e *encoder) {
	if o.afford(len(e.b)) {
		o.sendUnmetered(to, e)
	}
}

// sendUnmetered queues a packet that has a budget of its own.
func (o *outbox) sendUnmetered(to state.NodeID, e *encoder) {
	s := Send{To: to, Data: e.b, Reliable: len(e.b) > o.cfg.Datagram}
	if m := o.roster.members[to]; m != nil {
		s.Reliable = s.Reliable || o.now < m.streamUntil
		if m.phase != phaseAlive {
			s.Addr = m.addr
		}
	}
	o.queue(s)
}

// sendTo queues a datagram to an address that the membership need not know. Like
// send, it takes it from the budget of the packet that causes it.
func (o *outbox) sendTo(to state.NodeID, addr netip.AddrPort, e *encoder) {
	if o.afford(len(e.b)) {
		o.queue(Send{To: to, Addr: addr, Data: e.b})
	}
}

// queue puts a packet where Drain finds it, unless too much waits there or this
// node has left.
func (o *outbox) queue(s Send) {
	if o.silenced() {
		return
	}
	if len(o.sends) >= maxSends || o.sendBytes+len(s.Data) > maxSendBytes {
		o.Stats.SendsDropped++
		return
	}
	o.Stats.countOut(s.Data)
	if s.Reliable {
		o.Stats.StreamsOut++
	} else {
		o.Stats.DatagramsOut++
	}
	o.sendBytes += len(s.Data)
	o.sends = append(o.sends, s)
}

// emit puts an event where Drain finds it. Events that a peer can cause without
// end are dropped when too many wait.
func (o *outbox) emit(e Event) {
	if len(o.events) >= maxEvents {
		switch e.Kind {
		case EventCall, EventReply, EventBeacon, EventRefused, EventRejoin, EventMoved, EventExhausted:
			o.Stats.EventsDropped++
			return
		}
	}
	o.events = append(o.events, e)
}

// reportRefusal counts a delta of a peer that was refused, and emits an event
// about it now and then.
func (o *outbox) reportRefusal(from state.NodeID, err error) {
	o.Stats.Refused++
	leftOut, ok := o.mayReport(from)
	if !ok {
		return
	}
	reason := err.Error()
	if leftOut > 0 {
		reason = fmt.Sprintf("%s (and %d times more since it was last told)", reason, leftOut)
	}
	o.emit(Event{Kind: EventRefused, Node: from, Reason: reason})
}
