package observe

import (
	"log/slog"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/notice"
)

// Reporter says what is stated when it changes. It belongs to one goroutine.
type Reporter struct {
	board *notice.Board
	emit  func(...control.Event)
	log   *slog.Logger

	// What was reported last.

	unserved    notice.Condition // the texts of tasks that are not served
	tasks       map[string]bool  // those tasks, with the reason
	disbelief   notice.Condition
	disbelieved uint64 // claims so far
	full        notice.Condition
}

// NewReporter returns a Reporter of standing conditions, events and log lines.
func NewReporter(board *notice.Board, emit func(...control.Event), log *slog.Logger) *Reporter {
	return &Reporter{board: board, emit: emit, log: log}
}

// Report says what has changed since the last call, each condition at most once a minute.
func (r *Reporter) Report(now time.Time, s *Statements) {
	r.reportUnserved(now, s)
	text := ""
	if s.Disbelief.Count > r.disbelieved {
		text = s.Disbelief.String()
	}
	r.disbelieved = s.Disbelief.Count
	if r.changed(now, &r.disbelief, "disbelief", text) {
		r.log.Warn("claims about this node are not believed", "detail", text)
	}
	if r.changed(now, &r.full, "full", s.Full) {
		r.log.Warn("the tables fill up", "detail", s.Full)
	}
}

// changed shows a condition in the status, and reports whether to log it.
func (r *Reporter) changed(now time.Time, c *notice.Condition, key, text string) bool {
	r.board.Set(key, text)
	c.Text = text
	return c.Due(now)
}

// reportUnserved logs the number of tasks that are not served, and emits an event for each
// that is new.
func (r *Reporter) reportUnserved(now time.Time, s *Statements) {
	r.unserved.Text = strings.Join(s.UnservedTexts(), "; ")
	due := r.unserved.Due(now)
	if len(s.Unserved) == 0 {
		r.tasks = nil
	}
	if !due {
		return
	}
	first := s.Unserved[0]
	r.log.Warn("tasks are not served", "count", len(s.Unserved)+s.More,
		"network", first.Network, "service", first.Service, "task", first.Task, "node", first.Node, "detail", first.Detail)
	before := r.tasks
	r.tasks = make(map[string]bool, len(s.Unserved))
	for _, e := range s.Unserved {
		id := e.Network + " " + e.Task + " " + e.Node + " " + e.Detail
		if r.tasks[id] = true; !before[id] {
			r.emit(e)
		}
	}
}
