package mesh

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/mesh/internal/notice"
	"meshd/state"
)

// logged returns a node that only logs and emits, and what it logs.
func logged() (*Node, *bytes.Buffer) {
	var log bytes.Buffer
	return &Node{log: slog.New(slog.NewTextHandler(&log, nil)), events: control.NewEventLog("b", 1<<14)}, &log
}

// Nodes that somebody makes up have a bounded number of lines; watch has them all.
func TestNodesInTheLogArePaced(t *testing.T) {
	n, log := logged()
	c := newCoreEvents(n)
	now := time.Now()
	for i := range 1000 {
		c.onNode(coreEvent{gossip.Event{Kind: gossip.EventAlive, Node: state.NodeID(fmt.Sprint("made-up-", i))}, now})
	}
	c.onNode(coreEvent{gossip.Event{Kind: gossip.EventDead, Node: "b"}, now.Add(2 * notice.Interval)})
	if got := strings.Count(log.String(), "\n"); got != notice.LinesPerInterval+1 {
		t.Errorf("%d lines", got)
	}
	if !strings.Contains(log.String(), fmt.Sprint("not_told=", 1000-notice.LinesPerInterval)) {
		t.Error("the log does not say how many it left out")
	}
	if n.events.Index() != 1001 {
		t.Errorf("%d events", n.events.Index())
	}
}

// A pool that somebody fills and empties again and again is told once a minute.
func TestFullPoolsArePaced(t *testing.T) {
	n, log := logged()
	c := newCoreEvents(n)
	now := time.Now()
	for i := range 1000 {
		e := gossip.Event{Kind: gossip.EventExhausted, Network: "net"}
		if i%2 == 0 {
			e.Reason = "no VIP for a service"
		}
		c.onExhausted(coreEvent{e, now})
	}
	if got := strings.Count(log.String(), "\n"); got != 2 {
		t.Errorf("%d lines", got)
	}
}
