package mesh

import (
	"context"
	"sync/atomic"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/mesh/internal/notice"
)

// coreEvents carries the core's events to a goroutine of their own: what they lead to may
// wait, the core does not (N2). add and left are safe for concurrent use; all else belongs
// to run.
type coreEvents struct {
	n       *Node
	queue   chan coreEvent
	dropped atomic.Uint64 // events for which there was no room

	pools notice.Board // networks whose pools are used up, and how

	// What peers can cause at will is logged with limits (N4).

	refusals  notice.SubjectLimiter // by peer
	exhausted notice.SubjectLimiter // by network
	recovered notice.SubjectLimiter // by network
	nodes     notice.Limiter
}

// coreEvent is an event with the wall clock of its arrival.
type coreEvent struct {
	gossip.Event
	at time.Time
}

// maxCoreEvents is how many events may wait. More are dropped and counted: the lists show
// the same changes.
const maxCoreEvents = 4096

func newCoreEvents(n *Node) *coreEvents {
	return &coreEvents{n: n, queue: make(chan coreEvent, maxCoreEvents)}
}

// add takes an event in. It never blocks.
func (c *coreEvents) add(e gossip.Event) {
	select {
	case c.queue <- coreEvent{e, time.Now()}:
	default:
		c.dropped.Add(1)
	}
}

// left forgets what was said of a network.
func (c *coreEvents) left(network string) { c.pools.Set(network, "") }

// run handles events until ctx ends.
func (c *coreEvents) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-c.queue:
			c.handle(e)
		}
	}
}

// handle does what an event of the core asks for.
func (c *coreEvents) handle(e coreEvent) {
	n := c.n
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
		n.log.Error("another node uses this name", "reason", e.Reason)
		n.emit(control.Event{Type: control.EventNodeConflict, Node: n.cfg.Node, Detail: e.Reason})
	case gossip.EventRefused:
		c.refusals.Do(e.at, string(e.Node), func(before int) {
			n.log.Warn("what a peer sent was refused", "peer", string(e.Node), "error", e.Reason, "not_told", before)
		})
	case gossip.EventPreserve:
		switch changed := n.notices.Set("preserve", e.Reason); {
		case changed && e.Reason == "":
			n.log.Info("self-preservation is over")
		case changed:
			n.log.Warn("self-preservation keeps vanished members served", "reason", e.Reason)
		}
	case gossip.EventPanic:
		n.notices.Set("panic", e.Reason+"; the log has the details: please report it, and restart meshd when it is "+
			"convenient")
	case gossip.EventExhausted:
		c.onExhausted(e)
	case gossip.EventBeacon:
		n.metrics.Propagation(time.Duration(e.at.UnixNano()) - e.Stamp)
	default:
		c.onNode(e)
	}
}

// onNode passes on what became of another node. The log has a bounded number of these,
// since nodes cost nothing to make up; "watch" has all.
func (c *coreEvents) onNode(e coreEvent) {
	types := map[gossip.EventKind]control.EventType{
		gossip.EventAlive: control.EventNodeAlive, gossip.EventSuspect: control.EventNodeSuspect,
		gossip.EventDead: control.EventNodeDead, gossip.EventLeft: control.EventNodeLeft,
	}
	t, ok := types[e.Kind]
	if !ok {
		return
	}
	c.nodes.Do(e.at, func(before int) {
		attrs := []any{"name", string(e.Node), "state", string(t)}
		if before > 0 {
			attrs = append(attrs, "not_told", before)
		}
		c.n.log.Info("a node changed its state", attrs...)
	})
	c.n.emit(control.Event{Type: t, Node: string(e.Node)})
}

// onExhausted logs that services of a network have no address, or have one again. The
// event comes when their number changes.
func (c *coreEvents) onExhausted(e coreEvent) {
	if !c.pools.Set(e.Network, e.Reason) {
		return
	}
	if e.Reason == "" {
		c.recovered.Do(e.at, e.Network, func(int) { c.n.log.Info("every service has a VIP again", "network", e.Network) })
		return
	}
	c.exhausted.Do(e.at, e.Network, func(int) { c.n.log.Warn("services have no VIP", "reason", e.Reason) })
}

// emit adds events of now to the log that "watch" reads.
func (n *Node) emit(es ...control.Event) {
	now := time.Now()
	for i := range es {
		es[i].Time = now
	}
	n.events.Append(es...)
}
