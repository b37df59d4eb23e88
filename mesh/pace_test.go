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
	"meshd/mesh/notice"
	"meshd/state"
)

// logged returns a node that only logs and emits, and what it logs.
func logged() (*Node, *bytes.Buffer) {
	var log bytes.Buffer
	return &Node{log: slog.New(slog.NewTextHandler(&log, nil)), events: control.NewEventLog("b", 1<<14)}, &log
}

// Whatever peers state that is not served, and however often they change it, a
// minute has one line of it, and as many events as are shown.
func TestTasksNotServedArePaced(t *testing.T) {
	n, log := logged()
	k := &chores{n: n}
	begin := time.Now()
	for i := range 60 { // ten minutes
		var es []control.Event
		for j := range barredShown {
			es = append(es, control.Event{
				Type: control.EventServiceConflict, Network: "net", Service: "web",
				Task: fmt.Sprintf("t%d-%d", i, j), Node: "liar", Detail: "why",
			})
		}
		k.noteBarred(begin.Add(time.Duration(i)*10*time.Second), es, 5000)
	}
	if got := strings.Count(log.String(), "\n"); got != 10 {
		t.Errorf("%d lines in ten minutes", got)
	}
	if !strings.Contains(log.String(), "count=5020") || !strings.Contains(log.String(), "task=t0-0") {
		t.Errorf("the log says\n%s", log)
	}
	if got := n.events.Index(); got != 10*barredShown {
		t.Errorf("%d events in ten minutes", got)
	}
}

// What is not served, is served and is not served again is told again, and what
// stays as it is, is not.
func TestTasksNotServedAreToldWhenTheyChange(t *testing.T) {
	n, log := logged()
	k := &chores{n: n}
	e := control.Event{Network: "net", Service: "web", Task: "t1", Node: "b", Detail: "why"}
	now := time.Now()
	for _, x := range []struct {
		es   []control.Event
		told int
	}{{nil, 0}, {[]control.Event{e}, 1}, {[]control.Event{e}, 1}, {nil, 1}, {[]control.Event{e}, 2}} {
		now = now.Add(2 * time.Minute)
		k.noteBarred(now, x.es, 0)
		if lines := strings.Count(log.String(), "\n"); lines != x.told || n.events.Index() != uint64(x.told) {
			t.Errorf("%d lines and %d events, want %d", lines, n.events.Index(), x.told)
		}
	}
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
