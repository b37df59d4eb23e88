package gossip

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/coordinate"

	"meshd/state"
)

// Network coordinates ride in memberlist's ping acknowledgements: they give
// nearest.<service> and the round trip times of meshctl node ls.

// AckPayload implements memberlist.PingDelegate.
func (h *Host) AckPayload() []byte {
	c := h.coord.GetCoordinate()
	b := make([]byte, 0, 8*(len(c.Vec)+3))
	for _, f := range append([]float64{c.Error, c.Adjustment, c.Height}, c.Vec...) {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
	}
	return b
}

// NotifyPingComplete implements memberlist.PingDelegate.
func (h *Host) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, payload []byte) {
	h.memberEventQueue.add('r', other)
	c := coordinate.NewCoordinate(coordinate.DefaultConfig())
	if len(payload) != 8*(len(c.Vec)+3) {
		return
	}
	at := func(i int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(payload[8*i:])) }
	c.Error, c.Adjustment, c.Height = at(0), at(1), at(2)
	for i := range c.Vec {
		c.Vec[i] = at(i + 3)
	}
	if c.IsValid() {
		h.joiner.updateCoordinate(state.NodeID(other.Name), c, rtt)
	}
}

// RTT estimates the round trip time to a node. Safe for concurrent use.
func (h *Host) RTT(id state.NodeID) (time.Duration, bool) {
	if id == h.cfg.Self {
		return 0, true
	}
	c := h.joiner.coordinateOf(id)
	if c == nil {
		return 0, false
	}
	return h.coord.DistanceTo(c), true
}

// levelHandler gives memberlist's text log its levels back.
type levelHandler struct {
	slog.Handler
	budget *logBudget
}

// logBudget bounds what memberlist logs: it has a line for each packet that it
// does not like.
type logBudget struct {
	mu      sync.Mutex // guards what follows
	since   time.Time
	lines   int
	leftOut int
}

// A minute has so many lines of memberlist.
const logLines = 60

// take takes a line, and says how many were left out before it.
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
			if strings.Contains(rest, "Conflicting address") {
				level = slog.LevelDebug // said by logConflict, once
			}
			if !l.Handler.Enabled(ctx, level) {
				return nil
			}
			leftOut, ok := l.budget.take(time.Now())
			if !ok {
				return nil
			}
			n := slog.NewRecord(r.Time, level, "membership", r.PC)
			n.AddAttrs(slog.String("said", strings.TrimPrefix(strings.TrimSpace(rest), "memberlist: ")))
			if leftOut > 0 {
				n.AddAttrs(slog.Int("left_out_before", leftOut))
			}
			return l.Handler.Handle(ctx, n)
		}
	}
	return l.Handler.Handle(ctx, r)
}

// Enabled implements slog.Handler: the level is known only in Handle.
func (l levelHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level == slog.LevelDebug || l.Handler.Enabled(ctx, level)
}
