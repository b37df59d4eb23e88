package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/store"
	"meshd/state"
)

// slowDisk is a file layer whose writes take until they are let go.
type slowDisk struct {
	registry *Registry
	letGo    chan error // one for each write
	writes   [][]store.Change
	steps    int  // of the core
	stopped  bool // the core is
}

func newSlowDisk(t *testing.T) *slowDisk {
	t.Helper()
	s := &slowDisk{letGo: make(chan error)}
	r := New(Config{Store: s, Publisher: s, Log: slog.New(slog.DiscardHandler)},
		&Snapshot{networks: map[string]*localNetwork{}})
	s.registry = r
	ctx, cancel := context.WithCancel(t.Context())
	go r.runWriter(ctx)
	t.Cleanup(cancel)
	return s
}

func (s *slowDisk) Read(func(string, string, []byte) error) error { return nil }
func (s *slowDisk) Source() state.Source                          { return nil }

func (s *slowDisk) Write(changes []store.Change, _ func() []store.Change) error {
	s.writes = append(s.writes, changes)
	return <-s.letGo
}

func (s *slowDisk) Do(context.Context, func(Core)) error {
	if s.stopped {
		return ErrStopped
	}
	s.steps++
	return nil
}

// add registers a task and returns where the outcome comes.
func (s *slowDisk) add(ctx context.Context, id string) <-chan error {
	out := make(chan error, 1)
	go func() {
		out <- s.registry.change(ctx, &update{
			edit: func(d *draft) error { d.setTask("net", id, &savedTask{Service: "web"}); return nil },
			undo: func(d *draft) { d.forgetTask("net", id) },
		})
	}()
	synctest.Wait()
	return out
}

func (s *slowDisk) tasks() int {
	if l := s.registry.Snapshot().networks["net"]; l != nil {
		return l.tasks.len()
	}
	return 0
}

// N2: what is written while a disk is slow is neither stated nor acknowledged
// before it is on disk, and those who come meanwhile share the next write.
func TestRegistrationsShareAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowDisk(t)
		first := s.add(t.Context(), "t0")
		var rest []<-chan error
		for i := range 50 {
			rest = append(rest, s.add(t.Context(), fmt.Sprintf("t%d", i+1)))
		}
		if s.steps != 0 || s.tasks() != 0 || len(s.writes) != 1 {
			t.Fatalf("before the first write ended: %d steps of the core, %d tasks, %d writes", s.steps, s.tasks(),
				len(s.writes))
		}
		s.letGo <- nil
		if err := <-first; err != nil || s.tasks() != 1 {
			t.Fatalf("%v, %d tasks", err, s.tasks())
		}
		s.letGo <- nil
		for _, c := range rest {
			if err := <-c; err != nil {
				t.Fatal(err)
			}
		}
		if len(s.writes) != 2 || s.steps != 2 || len(s.writes[1]) != 50 {
			t.Errorf("%d writes and %d steps of the core for 51 registrations", len(s.writes), s.steps)
		}
	})
}

// A write that fails refuses all that it was for, and leaves nothing behind.
func TestFailedWriteRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowDisk(t)
		c := s.add(t.Context(), "t1")
		s.letGo <- errors.New("no space left on device")
		if err := <-c; !errors.Is(err, control.ErrUnavailable) || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("got %v", err)
		}
		if s.tasks() != 0 || s.steps != 0 {
			t.Errorf("%d tasks, %d steps of the core", s.tasks(), s.steps)
		}
	})
}

// A caller that leaves while others are written is forgotten; one whose own
// change is being written learns that it may come.
func TestCallersDoNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowDisk(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		writing, waiting := s.add(ctx, "t1"), s.add(ctx, "t2")
		time.Sleep(11 * time.Second) // of the bubble: the disk still has not answered
		if err := <-writing; err == nil || !strings.Contains(err.Error(), "still being written") {
			t.Errorf("being written: %v", err)
		}
		if err := <-waiting; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting: %v", err)
		}
		s.letGo <- nil
		synctest.Wait()
		if s.tasks() != 1 || len(s.writes) != 1 {
			t.Errorf("%d tasks, %d writes; the second caller had gone", s.tasks(), len(s.writes))
		}
	})
}

// What cannot be stated is taken off the disk again, and stands against nobody.
func TestUnstatedIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowDisk(t)
		s.stopped = true
		c := s.add(t.Context(), "t1")
		s.letGo <- nil
		s.letGo <- nil
		if err := <-c; !errors.Is(err, ErrStopped) || s.tasks() != 0 || s.writes[1][0].Value != nil {
			t.Errorf("%v, %d tasks, last write %v", err, s.tasks(), s.writes[1])
		}
	})
}

// A change that changes nothing is not written, and readers keep what they have.
func TestNothingChangedIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowDisk(t)
		before := s.registry.Snapshot()
		if err := s.registry.change(t.Context(), &update{edit: func(*draft) error { return nil }}); err != nil {
			t.Fatal(err)
		}
		if len(s.writes) != 0 || s.registry.Snapshot() != before {
			t.Error("written")
		}
	})
}
