package gossip

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// This file turns memberlist's text log into records with levels, and bounds it.

// levelHandler gives the lines of memberlist's log their levels.
type levelHandler struct {
	slog.Handler
	budget *logBudget
}

// logLines is how many lines of memberlist are logged per minute. It writes one for
// each packet that it does not like.
const logLines = 60

// logBudget bounds what memberlist logs. Safe for concurrent use.
type logBudget struct {
	mu      sync.Mutex // guards what follows
	since   time.Time  // begin of the minute
	lines   int        // in it
	leftOut int        // lines since the last one that was logged
}

// take takes a line, and returns how many were left out before it.
func (b *logBudget) take(now time.Time) (leftOut int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.since) >= time.Minute {
		b.since, b.lines = now, 0
	}
	if b.lines++; b.lines > logLines {
		b.leftOut++
		return 0, false
	}
	leftOut, b.leftOut = b.leftOut, 0
	return leftOut, true
}

// Handle implements slog.Handler.
func (l levelHandler) Handle(ctx context.Context, r slog.Record) error {
	for prefix, level := range map[string]slog.Level{
		"[ERR] ": slog.LevelWarn, "[WARN] ": slog.LevelInfo,
		"[INFO] ": slog.LevelDebug, "[DEBUG] ": slog.LevelDebug - 4,
	} {
		if rest, ok := strings.CutPrefix(r.Message, prefix); ok {
			return l.handleLine(ctx, r, level, rest)
		}
	}
	return l.Handler.Handle(ctx, r)
}

// handleLine logs a line of memberlist, without its prefix.
func (l levelHandler) handleLine(ctx context.Context, r slog.Record, level slog.Level, line string) error {
	if strings.Contains(line, "Conflicting address") {
		level = slog.LevelDebug // conflictLog logs it, once
	}
	if !l.Handler.Enabled(ctx, level) {
		return nil
	}
	leftOut, ok := l.budget.take(time.Now())
	if !ok {
		return nil
	}
	n := slog.NewRecord(r.Time, level, "membership", r.PC)
	n.AddAttrs(slog.String("said", strings.TrimPrefix(strings.TrimSpace(line), "memberlist: ")))
	if leftOut > 0 {
		n.AddAttrs(slog.Int("left_out_before", leftOut))
	}
	return l.Handler.Handle(ctx, n)
}

// Enabled implements slog.Handler. The level of a line is known only in Handle.
func (l levelHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level == slog.LevelDebug || l.Handler.Enabled(ctx, level)
}
