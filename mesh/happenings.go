package mesh

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// happenings carries the core's events to a goroutine of their own: what they
// lead to may wait, the core does not (N2).
type happenings struct {
	queue   chan happening
	dropped atomic.Uint64
}

// happening is an event with the wall clock of its arrival.
type happening struct {
	gossip.Event
	at time.Time
}

// maxHappenings is how many events may wait. More are dropped and counted: each
// tells of a change that the lists show as well.
const maxHappenings = 4096

func newHappenings() *happenings { return &happenings{queue: make(chan happening, maxHappenings)} }

// add takes an event in. It never blocks.
func (h *happenings) add(e gossip.Event) {
	select {
	case h.queue <- happening{e, time.Now()}:
	default:
		h.dropped.Add(1)
	}
}

// run handles events until ctx ends.
func (h *happenings) run(ctx context.Context, handle func(context.Context, happening)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-h.queue:
			handle(ctx, e)
		}
	}
}

// handle does what an event of the core asks for.
func (n *Node) handle(ctx context.Context, e happening) {
	switch e.Kind {
	case gossip.EventReincarnate:
		select {
		case n.reincarnated <- struct{}{}:
		default:
		}
		n.log.Warn("this node starts a higher incarnation: a peer held a newer stream of it, or it is back in a network")
	case gossip.EventDuplicate:
		n.notices.Set("duplicate", e.Reason)
		if e.Reason == "" {
			n.log.Info("the other node with this node's name is gone")
			return
		}
		n.log.Error("duplicate node name", "reason", e.Reason)
		n.emit(control.Event{Type: control.EventNodeConflict, Node: n.cfg.Node, Detail: e.Reason})
	case gossip.EventRefused:
		n.refusals.Do(e.at, string(e.Node), func(before int) {
			n.log.Warn("refused what a peer sent", "peer", string(e.Node), "error", e.Reason, "not_told", before)
		})
	case gossip.EventPreserve:
		if n.notices.Set("preserve", e.Reason) {
			n.log.Warn("self-preservation", "reason", e.Reason)
		}
	case gossip.EventPanic:
		n.notices.Set("panic", e.Reason+"; the log has the details: please report it, and restart meshd when it is "+
			"convenient")
	case gossip.EventExhausted:
		n.onExhausted(e)
	case gossip.EventBeacon:
		n.onBeacon(ctx, e)
	default:
		n.nodeEvent(e)
	}
}

// nodeEvent passes on what became of another node. The log has a bounded number
// of these, since nodes cost nothing to make up; "watch" has all.
func (n *Node) nodeEvent(e happening) {
	types := map[gossip.EventKind]control.EventType{
		gossip.EventAlive: control.EventNodeAlive, gossip.EventSuspect: control.EventNodeSuspect,
		gossip.EventDead: control.EventNodeDead, gossip.EventLeft: control.EventNodeLeft,
	}
	t, ok := types[e.Kind]
	if !ok {
		return
	}
	n.phases.Do(e.at, func(before int) {
		attrs := []any{"name", string(e.Node), "state", string(t)}
		if before > 0 {
			attrs = append(attrs, "not_told", before)
		}
		n.log.Info("node", attrs...)
	})
	n.emit(control.Event{Type: t, Node: string(e.Node)})
}

// onExhausted tells that services of a network have no address, or have one
// again. The event comes when their number changes.
func (n *Node) onExhausted(e happening) {
	if !n.told.Set("pool "+e.Network, e.Reason) {
		return
	}
	if e.Reason == "" {
		n.recovered.Do(e.at, e.Network, func(int) { n.log.Info("every service has a VIP again", "network", e.Network) })
		return
	}
	n.exhausted.Do(e.at, e.Network, func(int) { n.log.Warn("no VIP", "reason", e.Reason) })
}

func (n *Node) emit(es ...control.Event) {
	now := time.Now()
	for i := range es {
		es[i].Time = now
	}
	n.events.Append(es...)
}

// onBeacon measures propagation, or sends the node's own beacon.
func (n *Node) onBeacon(ctx context.Context, e happening) {
	if e.Node != state.NodeID(n.cfg.Node) {
		n.metrics.Propagation(time.Duration(e.at.UnixNano()) - e.Stamp)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = n.host.Do(ctx, func(c *gossip.Core, at time.Duration) {
		stamp := time.Duration(time.Now().UnixNano())
		n.check(c.Commit(at, "", []state.Change{{Kind: state.KindBeacon, Body: string(state.AppendBeacon(nil, stamp))}}))
	})
}

// turn lets one caller after the other.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn, until ctx ends.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another request: %w", ctx.Err())
	}
}

func (t turn) give() { <-t }
