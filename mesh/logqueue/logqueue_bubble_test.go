package logqueue

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// stuck is a pipe that nobody reads until released is closed.
type stuck struct {
	released chan struct{}
	got      bytes.Buffer
}

func (s *stuck) Write(b []byte) (int, error) {
	<-s.released
	return s.got.Write(b)
}

// N4: a logger does not wait while nobody reads, and the log says how much was dropped.
func TestLogQueueNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{released: make(chan struct{})}
		q := New(s)
		for i := range maxLines + 100 {
			fmt.Fprintf(q, "line %d\n", i)
			if i == 0 {
				synctest.Wait() // the first one is being written
			}
		}
		if n := q.Dropped(); n != 99 {
			t.Errorf("%d lines dropped", n)
		}
		if err := q.Close(); err == nil {
			t.Error("closed, though nobody reads")
		}
		close(s.released)
		synctest.Wait()
		if text := s.got.String(); !strings.HasPrefix(text, "line 0\nmeshd: 99 log lines were dropped") ||
			!strings.Contains(text, "line 4096\n") {
			t.Errorf("written: %.100s", text)
		}
		_, _ = q.Write([]byte("x\n"))
		_ = q.Close()
	})
}

// What was logged is written before the end.
func TestLogQueueWritesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		q := New(&b)
		_, _ = io.WriteString(q, "one\n")
		_, _ = io.WriteString(q, "two\n")
		if err := q.Close(); err != nil || b.String() != "one\ntwo\n" {
			t.Errorf("%v, %q", err, b.String())
		}
	})
}
