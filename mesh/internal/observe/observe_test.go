package observe

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/notice"
	"meshd/state"
)

// newReporter returns a Reporter, what it logs and what it emits.
func newReporter() (r *Reporter, log *bytes.Buffer, events *[]control.Event) {
	log, events = new(bytes.Buffer), new([]control.Event)
	emit := func(es ...control.Event) { *events = append(*events, es...) }
	return NewReporter(new(notice.Board), emit, slog.New(slog.NewTextHandler(log, nil))), log, events
}

// Whatever peers state that is not served, and however often they change it, a
// minute has one line of it, and as many events as are shown.
func TestTasksNotServedArePaced(t *testing.T) {
	r, log, events := newReporter()
	begin := time.Now()
	for i := range 60 { // ten minutes
		var es []control.Event
		for j := range maxUnserved {
			es = append(es, control.Event{
				Type: control.EventServiceConflict, Network: "net", Service: "web",
				Task: fmt.Sprintf("t%d-%d", i, j), Node: "liar", Detail: "why",
			})
		}
		r.Report(begin.Add(time.Duration(i)*10*time.Second), &Statements{Unserved: es, More: 5000})
	}
	if got := strings.Count(log.String(), "\n"); got != 10 {
		t.Errorf("%d lines in ten minutes", got)
	}
	if !strings.Contains(log.String(), "count=5020") || !strings.Contains(log.String(), "task=t0-0") {
		t.Errorf("the log says\n%s", log)
	}
	if got := len(*events); got != 10*maxUnserved {
		t.Errorf("%d events in ten minutes", got)
	}
}

// What is not served, is served and is not served again is told again, and what
// stays as it is, is not.
func TestTasksNotServedAreToldWhenTheyChange(t *testing.T) {
	r, log, events := newReporter()
	e := control.Event{Network: "net", Service: "web", Task: "t1", Node: "b", Detail: "why"}
	now := time.Now()
	for _, x := range []struct {
		es   []control.Event
		told int
	}{{nil, 0}, {[]control.Event{e}, 1}, {[]control.Event{e}, 1}, {nil, 1}, {[]control.Event{e}, 2}} {
		now = now.Add(2 * time.Minute)
		r.Report(now, &Statements{Unserved: x.es})
		if lines := strings.Count(log.String(), "\n"); lines != x.told || len(*events) != x.told {
			t.Errorf("%d lines and %d events, want %d", lines, len(*events), x.told)
		}
	}
}

// However many services have no address, a status says so in a few lines.
func TestConflictsAreSummedUp(t *testing.T) {
	var services []*state.Service
	for i := range 88 {
		services = append(services, &state.Service{
			Name:     fmt.Sprintf("s%02d", i),
			Conflict: "no IPv4 VIP: the pool 10.9.0.0/28 is exhausted",
		})
	}
	services = append(services, &state.Service{Name: "web"}, &state.Service{Name: "x", Conflict: "pinned twice"})
	got := strings.Join(ServiceConflicts("net", services), "\n")
	want := "network net: 88 services: no IPv4 VIP: the pool 10.9.0.0/28 is exhausted; first: s00\nnetwork net service " +
		"x: pinned twice"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for i := range services {
		services[i].Conflict = fmt.Sprint("reason ", i)
	}
	if out := ServiceConflicts("net", services); len(out) != maxShown+1 ||
		!strings.Contains(out[maxShown], "80 more services") {
		t.Errorf("%d lines, the last: %s", len(out), out[len(out)-1])
	}
}

// A configured network that no node has made may be a typing error.
func TestUndefinedNetworks(t *testing.T) {
	out := UndefinedNetworks([]string{"a", "b"}, map[string]state.NetworkDef{"a": {}})
	if len(out) != 1 || !strings.Contains(out[0], "nobody has made a network b") {
		t.Errorf("got %q", out)
	}
}

// Claims about this node and tables that fill up are shown while they last, and logged
// when they change.
func TestOtherStatements(t *testing.T) {
	r, log, _ := newReporter()
	now := time.Now()
	r.Report(now, &Statements{Disbelief: state.Disbelief{Count: 1}, Full: "network net is full"})
	if len(r.board.All()) != 2 || strings.Count(log.String(), "\n") != 2 {
		t.Errorf("shown %q, logged\n%s", r.board.All(), log)
	}
	r.Report(now.Add(time.Hour), &Statements{Disbelief: state.Disbelief{Count: 1}, Full: "network net is full"})
	if got := r.board.All(); len(got) != 1 || got[0] != "network net is full" || strings.Count(log.String(), "\n") != 2 {
		t.Errorf("without a new claim shown %q, logged\n%s", got, log)
	}
	if s := Look(state.NewStore("a", 1, state.DefaultLimits(), &ticks{})); len(s.UnservedTexts()) > 0 || s.Full != "" {
		t.Errorf("of an empty store %+v", s)
	}
}

// ticks is a Lamport clock.
type ticks struct{ n uint64 }

func (c *ticks) Tick() uint64     { c.n++; return c.n }
func (c *ticks) Time() uint64     { return c.n }
func (c *ticks) Witness(n uint64) { c.n = max(c.n, n) }
