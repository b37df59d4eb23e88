package mesh

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// LogQueue is a writer that never waits: lines go through a bounded queue to
// whoever reads them. If nobody does (a full pipe, a log daemon that is stuck),
// lines are dropped and counted, and their number is written once there is room
// again. Whoever logs goes on, the protocol's goroutine above all (N4). It is
// safe for concurrent use; each Write is one line.
type LogQueue struct {
	to      io.Writer
	lines   chan []byte
	dropped atomic.Uint64
	ended   chan struct{}
}

// maxLines is how many lines may wait.
const maxLines = 4096

// NewLogQueue returns a queue that writes to w from a goroutine of its own.
// Close it at the end.
func NewLogQueue(w io.Writer) *LogQueue {
	q := &LogQueue{to: w, lines: make(chan []byte, maxLines), ended: make(chan struct{})}
	go q.run()
	return q
}

// Write implements io.Writer. It takes a copy of b, or drops it.
func (q *LogQueue) Write(b []byte) (int, error) {
	select {
	case q.lines <- append([]byte(nil), b...):
	default:
		q.dropped.Add(1)
	}
	return len(b), nil
}

// Dropped returns how many lines were dropped so far.
func (q *LogQueue) Dropped() uint64 { return q.dropped.Load() }

func (q *LogQueue) run() {
	defer close(q.ended)
	told := uint64(0)
	for line := range q.lines {
		if line == nil {
			return
		}
		_, _ = q.to.Write(line) // there is nobody left to tell
		if n := q.dropped.Load(); n > told {
			_, _ = fmt.Fprintf(q.to, "meshd: %d log lines were dropped: nobody read the log\n", n-told)
			told = n
		}
	}
}

// logPatience is how long the last lines may take.
const logPatience = time.Second

// Close writes what waits, for a moment: a reader that is stuck does not keep
// the process alive. Nothing that is logged later is written.
func (q *LogQueue) Close() error {
	end := time.NewTimer(logPatience)
	defer end.Stop()
	select {
	case q.lines <- nil: // the end
	case <-end.C:
		return errLogStuck
	}
	select {
	case <-q.ended:
		return nil
	case <-end.C:
		return errLogStuck
	}
}

var errLogStuck = errors.New("nobody reads the log")
