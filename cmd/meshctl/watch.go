package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// The pauses between attempts to reach a meshd that went away.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 2 * time.Second
)

func watch(f *flags) action {
	var req control.WatchRequest
	f.network(&req.Network)
	f.value("from", "start after the event with this `INDEX` (default: from now on)", func(s string) (err error) {
		if req.From, err = strconv.ParseUint(s, 10, 64); err != nil {
			return &usageError{fmt.Sprintf("%q is not an index", s), "give the index of the last event seen, a number"}
		}
		return nil
	})
	f.value("boot", "the `BOOT` id that --from belongs to, from the event \"start\"", func(s string) error {
		if _, err := state.ParseBoot(s); err != nil {
			return &usageError{
				fmt.Sprintf("%q is not a boot id of 16 hex digits", s),
				"give the one of the event that --from is of",
			}
		}
		req.Boot = s
		return nil
	})
	return func(ctx context.Context, s *session, _ []string) error {
		if req.Network != "" { // it may be created later, but nothing else would reveal a typing error
			if _, err := s.client.Network(ctx, req.Network); errors.Is(err, control.ErrNotFound) {
				s.warn([]string{fmt.Sprintf("network %q is not known here yet; meshctl network ls lists those that are",
					req.Network)})
			}
		}
		err := (&watcher{session: s, req: req}).run(ctx)
		if ctx.Err() != nil {
			return nil // interrupted: that is how a watch ends
		}
		return err
	}
}

// watcher follows the events across reconnections.
type watcher struct {
	*session
	req     control.WatchRequest // resumes after the last event that was printed
	started bool                 // a stream has begun at least once
	lost    bool                 // the stream has ended, and no other has begun
	head    bool                 // the head of the table is printed
	pause   time.Duration        // before the next attempt to reconnect
}

// errOutput ends a watch whose standard output fails.
type errOutput struct{ error }

func (w *watcher) run(ctx context.Context) error {
	for {
		err := w.client.Watch(ctx, w.req, w.event)
		if out, ok := errors.AsType[errOutput](err); ok {
			return out.error
		}
		if ctx.Err() != nil || !w.started || !passing(err) {
			return err
		}
		if !w.lost {
			w.lost = true
			fmt.Fprintln(w.stderr, "meshctl watch: lost meshd; reconnecting")
		}
		w.pause = min(max(2*w.pause, firstPause), mostPause)
		select {
		case <-time.After(w.pause):
		case <-ctx.Done():
		}
	}
}

// passing reports whether a later attempt may succeed.
func passing(err error) bool {
	return errors.Is(err, control.ErrUnreachable) || errors.Is(err, control.ErrUnavailable)
}

// event prints one event and remembers where to resume.
func (w *watcher) event(e control.Event) error {
	resumed := w.lost && e.Type == control.EventStart
	if w.lost {
		fmt.Fprintln(w.stderr, "meshctl watch: connected again")
	}
	w.started, w.lost, w.pause = true, false, 0
	w.req.From = e.Index
	if e.Boot != "" {
		w.req.Boot = e.Boot
	}
	if resumed {
		return nil // nothing was missed: not worth a line
	}
	if err := w.print(e); err != nil {
		return errOutput{err}
	}
	return nil
}

func (w *watcher) print(e control.Event) error {
	if w.json {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = w.stdout.Write(append(b, '\n'))
		return err
	}
	const columns = "%-12s  %-8s  %-17s  %-14s  %-14s  %-14s  %-24s  %-12s  %s\n"
	if !w.head {
		w.head = true
		if _, err := fmt.Fprintf(w.stdout, columns, "TIME", "INDEX", "TYPE", "NETWORK", "SERVICE", "TASK", "ADDRESSES",
			"NODE", "DETAIL"); err != nil {
			return err
		}
	}
	if e.Type == control.EventStart {
		return nil // for programs
	}
	_, err := fmt.Fprintf(w.stdout, columns, e.Time.Local().Format("15:04:05.000"), strconv.FormatUint(e.Index, 10),
		orDash(string(e.Type)),
		orDash(e.Network), orDash(e.Service), orDash(e.Task), orDash(join(e.Addresses)), orDash(e.Node), orDash(detail(e)))
	return err
}

// detail returns the last column: all that has no column of its own.
func detail(e control.Event) string {
	if e.Sandbox == "" {
		return e.Detail
	}
	return strings.TrimSuffix("sandbox "+e.Sandbox+": "+e.Detail, ": ")
}
