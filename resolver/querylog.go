package resolver

// This file owns the log of questions.

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// sampler chooses the questions to log: one of every so many, 0: none. Safe
// for concurrent use.
type sampler struct {
	every  uint64
	seen   atomic.Uint64
	chosen atomic.Int64 // by the fast path, for the ordinary path to log
}

// due counts a question and reports whether it is to be logged.
func (s *sampler) due() bool {
	return s.every > 0 && s.seen.Add(1)%s.every == 0
}

// leave counts a packet that the fast path sees, and reports whether the fast path
// must leave it to the ordinary path, to be logged there.
func (s *sampler) leave() bool {
	if !s.due() {
		return false
	}
	s.chosen.Add(1)
	return true
}

// take reports whether the ordinary path is to log a question of those that the
// fast path has counted. Under load it may be another one than was chosen.
func (s *sampler) take() bool {
	for n := s.chosen.Load(); n > 0; n = s.chosen.Load() {
		if s.chosen.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}

// logQuery writes the line of a question that was chosen.
func (s *Server) logQuery(b *Bound, q *question, reply []byte, o queryOutcome, took time.Duration) {
	chosen := false
	if b.fast && !q.tcp {
		chosen = s.sample.take()
	} else {
		chosen = s.sample.due()
	}
	if !chosen || len(q.msg.Question) == 0 {
		return
	}
	attrs := []any{
		slog.Any("client", q.client), slog.String("name", q.msg.Question[0].Name),
		slog.String("type", dns.Type(q.qtype()).String()),
		slog.String("proto", q.proto()), slog.String("outcome", o.String()), slog.Duration("took", took),
		slog.Int("bytes", len(reply)),
	}
	var r dns.Msg
	if reply != nil && r.Unpack(reply) == nil {
		attrs = append(attrs, slog.String("rcode", dns.RcodeToString[r.Rcode]), slog.Int("answers", len(r.Answer)))
	}
	s.log.Info("dns query", attrs...)
}
