// Package logqueue keeps a process from waiting for whoever reads its log (N4).
//
// It owns the queue and the goroutine that writes it out. It knows nothing of what is
// logged, and imports nothing of ours.
package logqueue

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Queue is a writer that never waits: lines go through a bounded queue to a goroutine
// that writes them. While nobody reads what it writes (a full pipe, a log daemon that
// hangs), further lines are dropped and counted, and their number is written once
// there is room again. So whoever logs goes on, the protocol's goroutine above all
// (N4). It is safe for concurrent use; each Write is one line.
type Queue struct {
	to      io.Writer
	lines   chan []byte   // nil: the end
	dropped atomic.Uint64 // lines so far
	ended   chan struct{} // closed when run has returned
}

// maxLines is how many lines may wait.
const maxLines = 4096

// New returns a queue that writes to w from a goroutine of its own. Close ends it.
func New(w io.Writer) *Queue {
	q := &Queue{to: w, lines: make(chan []byte, maxLines), ended: make(chan struct{})}
	go q.run()
	return q
}

// Write implements io.Writer. It takes a copy of b, or drops it.
func (q *Queue) Write(b []byte) (int, error) {
	select {
	case q.lines <- append([]byte(nil), b...):
	default:
		q.dropped.Add(1)
	}
	return len(b), nil
}

// Dropped returns how many lines were dropped so far.
func (q *Queue) Dropped() uint64 { return q.dropped.Load() }

// run writes the lines until the end, and after each one how many were dropped.
func (q *Queue) run() {
	defer close(q.ended)
	reported := uint64(0) // of the lines dropped
	for line := range q.lines {
		if line == nil {
			return
		}
		_, _ = q.to.Write(line) // an error has nowhere to go
		if n := q.dropped.Load(); n > reported {
			_, _ = fmt.Fprintf(q.to, "meshd: %d log lines were dropped: nobody read the log\n", n-reported)
			reported = n
		}
	}
}

// closeTimeout is how long Close waits for the last lines to be written.
const closeTimeout = time.Second

// Close writes the lines that wait, for at most a second: a reader that hangs does not
// keep the process alive. The error says that it did. Lines written later are lost.
func (q *Queue) Close() error {
	end := time.NewTimer(closeTimeout)
	defer end.Stop()
	select {
	case q.lines <- nil: // the end
	case <-end.C:
		return errStuck
	}
	select {
	case <-q.ended:
		return nil
	case <-end.C:
		return errStuck
	}
}

var errStuck = errors.New("nobody reads the log")
