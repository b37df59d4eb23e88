package gossip

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"meshd/state"
)

// loneHost runs a host on a loopback socket until stop or the test's end.
func loneHost(t *testing.T) (h *Host, stop func()) {
	t.Helper()
	h, err := NewHost(HostConfig{
		Self: "lone", Bind: netip.MustParseAddrPort("127.0.0.1:0"), Profile: "local", Incarnation: 1,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan error, 1)
	go func() { finished <- h.Run(ctx) }()
	ended := false
	stop = func() {
		if cancel(); !ended {
			ended = true
			if err := <-finished; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return h, stop
}

func TestCallWithoutAnswer(t *testing.T) {
	h, stop := loneHost(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := h.Call(ctx, "nobody", "echo", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call to nobody: %v", err)
	}
	if n := len(h.calls.waiting); n > 0 {
		t.Errorf("%d calls wait for ever", n)
	}
	stop()
	if _, err := h.Call(t.Context(), "nobody", "echo", nil); !errors.Is(err, ErrStopped) {
		t.Errorf("a call after the end: %v", err)
	}
	if err := h.Leave(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("a leave after the end: %v", err)
	}
}

// TestRepliesOfOthers: only the node that was asked may answer (G8).
func TestRepliesOfOthers(t *testing.T) {
	h, _ := loneHost(t)
	ch := make(chan []byte, 1)
	h.calls.mu.Lock()
	h.calls.waiting[7] = waiter{"asked", ch}
	h.calls.mu.Unlock()
	reply := func(from state.NodeID, body string) {
		h.calls.receive(Event{Kind: EventReply, Node: from, Call: Call{ID: 7, Body: []byte(body)}})
	}
	reply("liar", "a lie")
	reply("asked", "the truth")
	reply("asked", "again") // must not block
	if got := string(<-ch); got != "the truth" {
		t.Errorf("got %q", got)
	}
}

// TestHandlersAreBounded: a flood of requests does not become a flood of
// goroutines (G7), and the end of the host waits for those that run.
func TestHandlersAreBounded(t *testing.T) {
	h, stop := loneHost(t)
	running, release := make(chan bool, 4*maxServing), make(chan struct{})
	h.Handle("slow", func(state.NodeID, []byte) []byte { running <- true; <-release; return nil })
	for i := range 4 * maxServing {
		h.calls.receive(Event{Kind: EventCall, Node: "b", Call: Call{ID: uint64(i), Op: "slow"}})
		h.calls.receive(Event{Kind: EventCall, Node: "b", Call: Call{ID: uint64(i), Op: "unknown"}})
	}
	for range maxServing {
		<-running
	}
	close(release)
	stop()
	if n := len(running); n > 0 {
		t.Errorf("%d handlers more than the bound of %d ran", n, maxServing)
	}
}
