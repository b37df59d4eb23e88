//go:build !race

package lookout

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb/hostcheck"
	"meshd/lb/hostread"
	"meshd/mesh/control"
)

// fakeHost is a host with sandboxes, and its reader.
type fakeHost struct {
	changed   bool
	down      error
	own       []hostcheck.Finding
	sandboxes []string
	inside    map[string][]hostcheck.Finding
	cost      time.Duration // of reading

	reads, fixes, looksInside int
	closed                    bool
	fixing                    bool // Fix changes something
}

func (h *fakeHost) Changed() bool {
	was := h.changed
	h.changed = false
	return was
}

func (h *fakeHost) Needs(context.Context) (*hostcheck.Needs, error) {
	return &hostcheck.Needs{}, h.down
}

func (h *fakeHost) Fix(context.Context, *hostcheck.Facts, *hostcheck.Needs, []hostcheck.AcceptRule) bool {
	h.fixes++
	return h.fixing
}

func (h *fakeHost) OwnFindings() []hostcheck.Finding { return h.own }
func (h *fakeHost) Sandboxes() []string              { return h.sandboxes }

func (h *fakeHost) LookInside(_ context.Context, name string, _ time.Duration) ([]hostcheck.Finding, bool) {
	h.looksInside++
	return h.inside[name], true
}

// fakeReader reads nothing.
type fakeReader struct{ h *fakeHost }

func (r fakeReader) Read(hostread.Want) *hostcheck.Facts {
	r.h.reads++
	time.Sleep(r.h.cost)
	return &hostcheck.Facts{}
}

func (r fakeReader) Changed() bool { return false }

func (r fakeReader) Close() error {
	r.h.closed = true
	return nil
}

// newFake returns a Lookout of a host, what it logs and what it emits.
func newFake(h *fakeHost) (l *Lookout, log *bytes.Buffer, events *[]control.Event) {
	log, events = new(bytes.Buffer), new([]control.Event)
	return New(Config{
		Host: h, Reader: fakeReader{h}, Log: slog.New(slog.NewTextHandler(log, nil)),
		Emit: func(e control.Event) { *events = append(*events, e) },
	}), log, events
}

// Run looks every five seconds, at once when something changed, and into sandboxes each
// second; at the end it closes the reader.
func TestRunLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHost{sandboxes: []string{"a", "b"}, inside: map[string][]hostcheck.Finding{}}
		l, log, events := newFake(h)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		if h.reads != 2 || h.fixes != 2 || h.looksInside != 2*10 {
			t.Errorf("in ten seconds %d looks at the host, %d fixes, %d looks into sandboxes", h.reads, h.fixes, h.looksInside)
		}
		h.changed = true
		h.inside["b"] = []hostcheck.Finding{{Code: hostcheck.FirewallOutput, Severity: hostcheck.Fault, What: "drops"}}
		time.Sleep(time.Second)
		synctest.Wait()
		if h.reads != 3 || len(l.Findings()) != 1 {
			t.Errorf("after a change %d looks, found %v", h.reads, l.Findings())
		}
		h.sandboxes, h.own = nil, []hostcheck.Finding{{Code: hostcheck.Alone, Severity: hostcheck.Fault, What: "alone"}}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := l.Findings(); len(got) != 1 || got[0].Code != hostcheck.Alone {
			t.Errorf("with the sandbox gone, found %v", got)
		}
		if len(*events) != 3 || strings.Count(log.String(), "\n") != 3 || (*events)[0].Type != control.EventHostFound {
			t.Errorf("events %v, log\n%s", *events, log)
		}
		stop()
		if err := <-ended; err != nil || !h.closed {
			t.Errorf("ended with %v, reader closed %v", err, h.closed)
		}
	})
}

// A look that takes long is followed by fifty times as much rest.
func TestRunRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHost{cost: 2 * time.Second, fixing: true}
		l, _, _ := newFake(h)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = l.Run(ctx) }()
		time.Sleep(200 * time.Second)
		synctest.Wait()
		if c := l.Counts(); c.Looks != 1 || h.reads != 2 || c.Spent != 4*time.Second {
			t.Errorf("in 200 seconds %+v, and the host was read %d times", c, h.reads)
		}
		stop()
		synctest.Wait()
	})
}

// A person's look waits for its turn, and ends with its context or the node's error.
func TestLook(t *testing.T) {
	h := &fakeHost{own: []hostcheck.Finding{
		{Code: hostcheck.FirewallOutput, Severity: hostcheck.Warning, What: "w"},
		{Code: hostcheck.Alone, Severity: hostcheck.Fault, What: "f", Command: "meshctl join x"},
	}}
	l, _, _ := newFake(h)
	found, err := l.Look(t.Context())
	if err != nil || len(found) != 2 || found[0].Severity != hostcheck.Fault {
		t.Errorf("found %v, %v; the gravest is to be first", found, err)
	}
	if d := Report(found); len(d.Findings) != 2 || d.Findings[0].Command != "meshctl join x" {
		t.Errorf("reported %+v", d)
	}
	h.down = errors.New("stopped")
	if _, err := l.Look(t.Context()); !errors.Is(err, h.down) {
		t.Error(err)
	}
	_ = l.begin(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := l.Look(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	fixed := 0
	for range 100 {
		l.Fixed("forwarding", func(int) { fixed++ })
	}
	if fixed != 1 || l.Counts().Fixes != 100 {
		t.Errorf("said %d times, counted %d", fixed, l.Counts().Fixes)
	}
}
