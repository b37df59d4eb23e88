package gossip_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/state"
)

// TestPanicOutlived: a step that panics is dropped and told once; the loop, and
// whoever waits for the step, go on.
func TestPanicOutlived(t *testing.T) {
	events := make(chan gossip.Event, 64)
	h, err := gossip.NewHost(gossip.HostConfig{
		Self: "a", Bind: netip.MustParseAddrPort("127.0.0.1:0"), Profile: "local", Incarnation: 1,
		Log: slog.New(slog.DiscardHandler), OnEvent: func(e gossip.Event) { events <- e },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	finished := make(chan error, 1)
	go func() { finished <- h.Run(ctx) }()
	for range 3 {
		err := h.Do(ctx, func(*gossip.Core, time.Duration) { panic("made by the test") })
		if !errors.Is(err, gossip.ErrPanicked) {
			t.Fatalf("the caller was told %v", err)
		}
	}
	do(t, h, func(*gossip.Core, time.Duration) {})
	if n := h.Stats().Panics; n != 3 {
		t.Errorf("%d panics were counted", n)
	}
	stop()
	if err := <-finished; err != nil {
		t.Error(err)
	}
	told := 0
	for len(events) > 0 {
		if e := <-events; e.Kind == gossip.EventPanic {
			told++
		}
	}
	if told != 1 {
		t.Errorf("three panics within a minute were told %d times", told)
	}
}

// TestHandlerPanicOutlived: a request that makes a handler panic ends neither
// the node nor the next request.
func TestHandlerPanicOutlived(t *testing.T) {
	a := startHost(t, "a", nil)
	b := startHost(t, "b", nil, a.Addr().String())
	a.Handle("panics", func(state.NodeID, []byte) []byte { panic("made by the test") })
	a.Handle("echo", func(_ state.NodeID, body []byte) []byte { return body })
	eventually(t, "b knows a", func() bool { return len(b.Membership()) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _ = b.Call(ctx, "a", "panics", nil)
	eventually(t, "the panic is counted", func() bool { return a.Stats().Panics > 0 })
	if body, err := b.Call(t.Context(), "a", "echo", []byte("x")); err != nil || string(body) != "x" {
		t.Errorf("the next request: %q %v", body, err)
	}
}
