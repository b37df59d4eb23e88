package resolver

// This file owns the life of a server and of one question on the ordinary path:
// bounded, counted, and answered with SERVFAIL if it panics.

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// ErrClosed is returned by Listen after Close.
var ErrClosed = errors.New("resolver is closed")

// udpLimit is more answers than a UDP reply has room for: 1232 bytes are 75
// compressed A records.
const udpLimit = 96

// tcpLimit is how many compressed A records 65535 bytes have room for.
const tcpLimit = 4000

// Server answers DNS on its listeners. Its methods are safe for concurrent use.
type Server struct {
	// What answers. Set once.
	cfg     Config     // with its defaults
	zone    *zone      // names of ours
	forward *forwarder // names of others
	holding holds      // questions that wait for the first sync

	// What is counted and logged. Safe for concurrent use.
	log           *slog.Logger
	met           *metrics     // all that is counted
	sample        sampler      // of the query log
	started       time.Time    // what gates count their time from
	running       atomic.Int64 // handlers running now
	panicLog      logLimit     // of handlers that panic
	unpackableLog logLimit     // of replies that cannot be packed

	// Who is served (R8).
	clients  atomic.Pointer[clientList] // nil: all clients
	stranger atomic.Pointer[Stranger]   // the client that was refused last; nil: none was

	// Life: Close first ends what is held, then waits for the questions in hand.
	ctx      context.Context    // ends with Close, after the questions in hand
	cancel   context.CancelFunc // ends ctx
	holdCtx  context.Context    // ends as Close begins
	endHolds context.CancelFunc // ends holdCtx

	// The listeners.
	own    atomic.Pointer[[]netip.AddrPort] // their addresses, for the loop guard: see addrs
	mu     sync.Mutex                       // guards what follows
	bound  []*Bound                         // in service
	closed bool                             // Close was called
}

// New makes a server that answers from cfg.Source once Listen is called. The
// error wraps ErrConfig and names the field. The caller must call Close.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, zone: cfg.zone(), met: newMetrics(), started: time.Now(),
		holding: holds{clients: map[netip.Addr]int{}},
	}
	s.SetClients(cfg.Clients, cfg.HostAddrs)
	s.sample.every = uint64(cfg.QueryLog)
	s.own.Store(&[]netip.AddrPort{})
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.holdCtx, s.endHolds = context.WithCancel(s.ctx)
	s.forward = newForwarder(s.ctx, cfg.Forward, cfg.Log, s.met,
		func() []netip.AddrPort { return *s.own.Load() })
	return s, nil
}

func (c *Config) zone() *zone {
	return &zone{
		Source: c.Source, Domain: c.Domain,
		TTL: uint32(c.TTL / time.Second), NegativeTTL: uint32(c.NegativeTTL / time.Second),
		VIPsUsable: c.VIPsUsable, WhyNoVIPs: c.WhyNoVIPs, RTT: c.RTT, Notes: c.Notes,
		SharedSuffixes: c.SharedSuffixes, ForwardBare: c.ForwardBare,
	}
}

// Explain answers as zone.Explain, for `meshctl resolve`.
func (s *Server) Explain(network, name, qtype string) (Explanation, error) {
	return s.zone.Explain(network, name, qtype)
}

// Upstreams returns the servers that names of others are forwarded to.
func (s *Server) Upstreams() []UpstreamStatus {
	var out []UpstreamStatus
	for _, p := range s.forward.routes.Load().all() {
		out = append(out, p.status(time.Now())...)
	}
	return out
}

// Stats returns the counters of the moment.
func (s *Server) Stats() Stats {
	st := s.met.stats()
	st.InFlight = s.running.Load()
	s.mu.Lock()
	st.Listeners = len(s.bound)
	s.mu.Unlock()
	st.CacheEntries, st.CacheBytes = s.forward.cache.size()
	return st
}

// Close stops all listeners, lets the questions in hand finish until ctx is
// done, and ends everything else. Closing twice is harmless.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	bound := s.bound
	s.bound, s.closed = nil, true
	s.mu.Unlock()
	s.endHolds()
	var wg sync.WaitGroup
	errs := make([]error, len(bound))
	for i, b := range bound {
		wg.Go(func() { errs[i] = b.stop(ctx) })
	}
	wg.Wait()
	s.cancel()
	return errors.Join(errs...)
}

// accept is the library's first check, on the header only.
func (s *Server) accept(h dns.Header) dns.MsgAcceptAction {
	const qr = 1 << 15
	if h.Bits&qr != 0 {
		s.met.count(countMalformed)
		return dns.MsgIgnore
	}
	if opcode := int(h.Bits>>11) & 0xF; opcode != dns.OpcodeQuery {
		return dns.MsgRejectNotImplemented
	}
	if h.Qdcount != 1 || h.Ancount > 1 || h.Nscount > 1 || h.Arcount > 3 {
		s.met.count(countMalformed)
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// ServeDNS implements dns.Handler for both protocols.
func (b *Bound) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	if a, ok := w.RemoteAddr().(connAddr); ok {
		local := addrPort(w.LocalAddr()).Addr()
		a.conn.answer(func() { b.server.handle(b, question{q, b.clientOf(addrPort(a)), local, true}, a.conn.reply) })
		return
	}
	b.server.handle(b, question{q, b.clientOf(addrPort(w.RemoteAddr())), b.addr.Addr(), false}, func(msg []byte) error {
		_, err := w.Write(msg)
		return err
	})
}

// question is one query as it came.
type question struct {
	msg    *dns.Msg
	client netip.AddrPort
	local  netip.Addr
	tcp    bool
}

func (q *question) proto() string {
	if q.tcp {
		return "tcp"
	}
	return "udp"
}

func (q *question) qtype() uint16 {
	if len(q.msg.Question) == 0 {
		return dns.TypeNone
	}
	return q.msg.Question[0].Qtype
}

// handle answers one query: bounded, counted, and proof against panics.
func (s *Server) handle(b *Bound, q question, write func([]byte) error) {
	start := time.Now()
	if s.running.Add(1) > int64(s.cfg.MaxInFlight) {
		s.running.Add(-1)
		s.met.query(q.tcp, q.qtype(), outcomeDropped, 0)
		return
	}
	defer s.running.Add(-1)
	msg, outcome := s.answer(b, q)
	if msg != nil {
		if err := write(msg); err != nil {
			s.log.Debug("dns reply could not be sent", "client", q.client, "error", err)
		}
	}
	took := since(start)
	s.met.query(q.tcp, q.qtype(), outcome, took)
	if s.sample.every > 0 {
		s.logQuery(b, &q, msg, outcome, took)
	}
}

// answer makes the packed reply; a panic becomes SERVFAIL. nil means no reply.
func (s *Server) answer(b *Bound, q question) (msg []byte, outcome queryOutcome) {
	defer func() {
		if r := recover(); r != nil {
			if s.panicLog.due(time.Now()) { // all are counted
				s.log.Error("dns handler panicked", "panic", r, "client", q.client, "question", q.msg.Question, "stack",
					string(debug.Stack()))
			}
			msg, _ = failure(q.msg).Pack()
			outcome = outcomePanic
		}
	}()
	m, outcome := s.resolve(b, q)
	if m == nil {
		return nil, outcome
	}
	msg, err := finish(q.msg, m, !q.tcp, s.cfg.MaxUDPPayload)
	if err != nil {
		if s.unpackableLog.due(time.Now()) {
			s.log.Error("dns reply could not be packed", "question", q.msg.Question, "error", err)
		}
		msg, _ = failure(q.msg).Pack()
		return msg, outcomeFailed
	}
	if m.Truncated {
		s.met.count(countTruncated)
	}
	return msg, outcome
}

// resolve makes the reply to q; nil means none.
func (s *Server) resolve(b *Bound, q question) (*dns.Msg, queryOutcome) {
	if m := refusal(q.msg); m != nil {
		return m, outcomeRefused
	}
	question := q.msg.Question[0]
	query := zoneQuery{
		Name: question.Name, Type: question.Qtype, Scope: b.scope(q.client.Addr()),
		Seed: rand.Uint64(), Limit: udpLimit, Local: q.local, Balanced: b.vips,
	}
	if q.tcp {
		query.Limit = tcpLimit
	}
	r := s.zone.answer(query)
	if len(r.Waiting) > 0 {
		r = s.held(s.holdCtx, clientKey(q.client.Addr()), query, r)
	}
	if r.Forward {
		return s.forward.resolve(q)
	}
	if r.Bare && b.bare != nil {
		reply, err := b.bare(s.holdCtx, q.msg)
		switch {
		case err != nil:
			return failure(q.msg), outcomeFailed
		case reply != nil:
			return upstreamReply(q.msg, reply, 0, 0), outcomeForwarded
		}
	}
	if r.Negative() {
		return localReply(q.msg, &r), outcomeNegative
	}
	return localReply(q.msg, &r), outcomeLocal
}
