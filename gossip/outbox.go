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
type outbox struct {
	*env
	roster *roster

	budgets   answerBudgets
	sends     []Send
	sendBytes int // of the Data of sends
	events    []Event
}

// send queues a packet; what does not fit a datagram goes over a stream (G5).
// If it answers a packet, it is one of the few that this packet may cause.
func (o *outbox) send(to state.NodeID, e *encoder) {
	if o.afford(len(e.b)) {
		o.sendUnmetered(to, e)
	}
}

// sendUnmetered is send for what has a budget of its own.
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

// sendTo queues a datagram to an address that the membership need not know.
func (o *outbox) sendTo(to state.NodeID, addr netip.AddrPort, e *encoder) {
	if o.afford(len(e.b)) {
		o.queue(Send{To: to, Addr: addr, Data: e.b})
	}
}

// queue puts a packet where Drain finds it.
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

// emit tells the layer above. What a peer can cause without end is dropped
// when too much waits.
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
