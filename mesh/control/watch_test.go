package control

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
)

var errEnough = errors.New("enough")

// take watches until n events came and returns them.
func take(t *testing.T, watch func(context.Context, WatchRequest, func(Event) error) error, req WatchRequest,
	n int,
) []Event {
	t.Helper()
	var got []Event
	err := watch(t.Context(), req, func(e Event) error {
		if got = append(got, e); len(got) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("watch %+v: %v after %d events", req, err, len(got))
	}
	return got
}

func indexes(events []Event) (all []uint64) {
	for _, e := range events {
		all = append(all, e.Index)
	}
	return all
}

func TestEventLogResume(t *testing.T) {
	l := NewEventLog("00000000000000b1", 4)
	for range 6 { // 1..6; the log keeps 3..6
		l.Append(Event{Type: EventEndpointAdded})
	}
	for _, tt := range []struct {
		req   WatchRequest
		first EventType
		want  []uint64
	}{
		{WatchRequest{From: 2}, EventStart, []uint64{2, 3, 4, 5, 6}},
		{WatchRequest{From: 4, Boot: "00000000000000b1"}, EventStart, []uint64{4, 5, 6}},
		{WatchRequest{From: 6}, EventStart, []uint64{6}},
		{WatchRequest{}, EventStart, []uint64{6}},
		{WatchRequest{From: 1}, EventReset, []uint64{6}},
		{WatchRequest{Boot: "00000000000000b1"}, EventReset, []uint64{6}}, // from the very first, which is gone
		{WatchRequest{From: 7}, EventReset, []uint64{6}},
		{WatchRequest{From: 4, Boot: "00000000000000b0"}, EventReset, []uint64{6}},
	} {
		got := take(t, l.Watch, tt.req, len(tt.want))
		if got[0].Type != tt.first || got[0].Boot != "00000000000000b1" || !slices.Equal(indexes(got), tt.want) {
			t.Errorf("%+v: got %s %v, want %s %v", tt.req, got[0].Type, indexes(got), tt.first, tt.want)
		}
	}
}

// A log without events yet: who was there at index 0 misses nothing.
func TestEventLogResumeFromZero(t *testing.T) {
	l := NewEventLog("00000000000000b1", 4)
	first := take(t, l.Watch, WatchRequest{}, 1)[0]
	l.Append(Event{Type: EventNodeAlive})
	got := take(t, l.Watch, WatchRequest{From: first.Index, Boot: first.Boot}, 2)
	if got[0].Type != EventStart || got[1].Type != EventNodeAlive || got[1].Index != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestEventLogNetworkFilter(t *testing.T) {
	l := NewEventLog("b", 10)
	l.Append(Event{Network: "a"}, Event{Network: "b"}, Event{Type: EventNodeDead}, Event{Network: "a"})
	got := take(t, l.Watch, WatchRequest{Network: "a", Boot: "b"}, 4)
	if want := []uint64{0, 1, 3, 4}; !slices.Equal(indexes(got), want) {
		t.Errorf("got %v, want %v", indexes(got), want)
	}
}

// A reader that stalls costs nothing and learns that it missed events.
func TestEventLogSlowReader(t *testing.T) {
	l := NewEventLog("b", 4)
	var got []Event
	err := l.Watch(t.Context(), WatchRequest{}, func(e Event) error {
		got = append(got, e)
		if len(got) == 1 {
			for range 10 {
				l.Append(Event{})
			}
		}
		if len(got) == 2 {
			l.Append(Event{})
		}
		if len(got) == 3 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || got[1].Type != EventReset || got[1].Index != 10 || got[2].Index != 11 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Events are seen as they come, by every watcher, until Close.
func TestEventLogLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewEventLog("b", 16)
		seen := make([][]uint64, 3)
		errs := make(chan error, 3)
		for i := range seen {
			go func() {
				errs <- l.Watch(t.Context(), WatchRequest{}, func(e Event) error {
					seen[i] = append(seen[i], e.Index)
					return nil
				})
			}()
		}
		synctest.Wait()
		l.Append(Event{}, Event{})
		synctest.Wait()
		l.Append(Event{})
		l.Append()
		l.Close()
		l.Close()
		for i := range seen {
			if err := <-errs; !errors.Is(err, ErrClosed) {
				t.Errorf("watch ended with %v", err)
			}
			_ = i
		}
		for i := range seen {
			if want := []uint64{0, 1, 2, 3}; !slices.Equal(seen[i], want) {
				t.Errorf("watcher %d saw %v, want %v", i, seen[i], want)
			}
		}
	})
}

// Over the socket: the first line at once, then each event as it comes, and an
// end that can be resumed when the server stops.
func TestWatchOverSocket(t *testing.T) {
	f := newFake()
	l, err := Listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f, slog.New(slog.DiscardHandler)) }()
	var got []Event
	err = Dial(l.Addr().String()).Watch(t.Context(), WatchRequest{Network: "collabnet"}, func(e Event) error {
		switch got = append(got, e); len(got) {
		case 1:
			f.events.Append(Event{Type: EventEndpointAdded, Network: "collabnet", Task: "x", Time: when, Addresses: task.IPs})
		case 2:
			cancel()
		}
		return nil
	})
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("after the stop: got %v, want ErrUnreachable", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if len(got) != 2 || got[0].Type != EventStart || got[1].Task != "x" || !got[1].Time.Equal(when) ||
		got[1].Addresses[0] != ip4 {
		t.Errorf("got %+v", got)
	}
}

func TestWatchEnds(t *testing.T) {
	f := newFake()
	c := start(t, f)
	if err := c.Watch(t.Context(), WatchRequest{}, func(Event) error { return errEnough }); !errors.Is(err, errEnough) {
		t.Errorf("emit failed: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Watch(ctx, WatchRequest{}, func(Event) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	f.err = Refuse(CodeUnavailable, "wait", "starting")
	if err := c.Watch(t.Context(), WatchRequest{}, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("refused: got %v", err)
	}
}
