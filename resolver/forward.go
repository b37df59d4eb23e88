package resolver

// This file owns a forwarded question (R7): the cache, joining equal questions,
// and asking one upstream after the other.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// staleAfter is how long a client waits for a refresh before it gets a stale
// answer (RFC 8767 §5), and staleTTL the TTL of that, in seconds.
const (
	staleAfter = 1800 * time.Millisecond
	staleTTL   = 30
)

// recheckTime is how long after a failure a stale answer is given at once, and
// failureTime how long the failure is remembered where there is none.
const (
	recheckTime = 5 * time.Second
	failureTime = 2 * time.Second
)

var errNoUpstream = errors.New("no upstream: resolv.conf has none but ourselves, or forwarding is disabled")

// forwarder answers from upstreams and a cache. Safe for concurrent use.
type forwarder struct {
	// Set once.
	cfg ForwardConfig           // with its defaults
	log *slog.Logger            // for what fails
	ctx context.Context         // ends the calls
	met *metrics                // the server's
	own func() []netip.AddrPort // the addresses of our listeners

	// What it knows. Each is safe for concurrent use.
	routes atomic.Pointer[routes] // replaced as a whole
	loops  loops                  // the probes in flight
	cache  *cache                 // of answers

	// The questions in hand.
	mu      sync.Mutex         // guards what follows
	calls   map[cacheKey]*call // in flight, each for all equal questions
	waiting int                // questions for calls
	clients map[netip.Addr]int // the same, per client
}

// call is one question in flight, which identical questions join.
type call struct {
	done  chan struct{} // closed when reply and err are set
	reply *dns.Msg      // shared: copy before changing
	err   error
}

func newForwarder(ctx context.Context, cfg ForwardConfig, log *slog.Logger, met *metrics,
	own func() []netip.AddrPort,
) *forwarder {
	f := &forwarder{
		cfg: cfg, log: log, ctx: ctx, met: met, own: own,
		cache: newCache(cfg.CacheEntries, cfg.CacheBytes), loops: loops{pending: map[string]*upstream{}},
		calls: map[cacheKey]*call{}, clients: map[netip.Addr]int{},
	}
	f.routes.Store(f.newRoutes(cfg))
	return f
}

// resolve answers a question that is not ours; a nil message means no reply.
func (f *forwarder) resolve(q question) (*dns.Msg, queryOutcome) {
	if f.loops.returned(q.msg) {
		m := newReply(q.msg)
		m.Rcode = dns.RcodeNameError
		return m, outcomeRefused
	}
	key := keyOf(q.msg)
	have := f.cache.get(key, time.Now())
	switch {
	case have.fresh && have.msg.Rcode == dns.RcodeServerFailure:
		return upstreamReply(q.msg, have.msg, have.age, 0), outcomeFailed
	case have.fresh:
		return upstreamReply(q.msg, have.msg, have.age, 0), outcomeCached
	case have.recheckPending:
		return upstreamReply(q.msg, have.msg, 0, staleTTL), outcomeStale
	}
	client := clientKey(q.client.Addr())
	if !f.admit(client, q.tcp) {
		f.met.count(countUpstreamFull)
		switch {
		case have.msg != nil:
			return upstreamReply(q.msg, have.msg, 0, staleTTL), outcomeStale
		case q.tcp:
			return failure(q.msg), outcomeDropped
		}
		return nil, outcomeDropped
	}
	defer f.leave(client)
	c := f.join(key, q.msg)
	if wait(c, have.msg != nil) && c.err == nil && !(q.tcp && onlyTruncated(c.reply)) {
		return upstreamReply(q.msg, c.reply, 0, 0), outcomeForwarded
	}
	if have.msg != nil {
		return upstreamReply(q.msg, have.msg, 0, staleTTL), outcomeStale
	}
	return failure(q.msg), outcomeFailed
}

// wait waits for the call and reports whether it ended with a usable answer to
// prefer over a stale one, if there is one.
func wait(c *call, stale bool) bool {
	if !stale {
		<-c.done
		return true
	}
	t := time.NewTimer(staleAfter)
	defer t.Stop()
	select {
	case <-c.done:
		return c.err == nil && c.reply.Rcode != dns.RcodeServerFailure
	case <-t.C:
		return false
	}
}

// admit takes a place among the waiting questions, within the limits. The last
// quarter of the places is for questions over TCP: where the addresses of
// datagrams are made up, no share per client keeps one sender from all the others.
func (f *forwarder) admit(client netip.Addr, tcp bool) bool {
	limit := f.cfg.Max
	if !tcp {
		limit -= f.cfg.Max / 4
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting >= limit || f.clients[client] >= f.cfg.MaxClient*shares(client) {
		return false
	}
	f.waiting++
	f.clients[client]++
	return true
}

func (f *forwarder) leave(client netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting--
	if f.clients[client]--; f.clients[client] == 0 {
		delete(f.clients, client)
	}
}

// join returns the call in flight for the key, or starts one.
func (f *forwarder) join(key cacheKey, q *dns.Msg) *call {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[key]; c != nil {
		f.met.count(countCoalesced)
		return c
	}
	c := &call{done: make(chan struct{})}
	f.calls[key] = c
	go f.run(c, key, upstreamQuery(q))
	return c
}

// run asks the upstreams for c. It ends by the timeout at the latest.
func (f *forwarder) run(c *call, key cacheKey, m *dns.Msg) {
	ctx, cancel := context.WithTimeout(f.ctx, f.cfg.Timeout)
	defer cancel()
	c.reply, c.err = f.ask(ctx, f.routes.Load().serversFor(fold(key.name)), m, nil)
	if c.err == nil {
		f.remember(key, c.reply)
	}
	if !errors.Is(c.err, errNoUpstream) && (c.err != nil || c.reply.Rcode == dns.RcodeServerFailure) {
		f.failed(key, m)
	}
	if c.err != nil && !errors.Is(c.err, errNoUpstream) {
		f.log.Debug("dns question could not be forwarded", "question", key, "error", c.err)
	}
	f.mu.Lock()
	delete(f.calls, key)
	f.mu.Unlock()
	close(c.done)
}

// failed makes the next clients with the question wait less: they get the stale
// answer at once if there is one, else the failure itself for a moment (RFC
// 9520), since stub resolvers ask again as soon as they hear of it.
func (f *forwarder) failed(key cacheKey, m *dns.Msg) {
	now := time.Now()
	if !f.cache.setRecheck(key, now.Add(recheckTime)) {
		f.cache.put(key, failure(m), now, failureTime, 0)
	}
}

// remember caches a reply for its TTL within the configured limits.
func (f *forwarder) remember(key cacheKey, m *dns.Msg) {
	ttl, negative, ok := lifetime(m)
	limit := f.cfg.MaxTTL
	if negative {
		limit = f.cfg.MaxNegative
	}
	if ok && key.rd {
		f.cache.put(key, m, time.Now(), min(ttl, limit), max(0, f.cfg.Stale))
	}
}

// attempt is the result of one try.
type attempt struct {
	from  netip.AddrPort
	reply *dns.Msg
	err   error
	took  time.Duration
}

// good reports whether the attempt answers the question.
func (a attempt) good() bool {
	return a.err == nil && !onlyTruncated(a.reply) &&
		(a.reply.Rcode == dns.RcodeSuccess || a.reply.Rcode == dns.RcodeNameError)
}

// onlyTruncated reports whether a reply says only that there is more than it has. Over
// TCP that is no answer: without TC it would say that the name has no records.
func onlyTruncated(m *dns.Msg) bool { return m.Truncated && len(m.Answer) == 0 }

// ask asks the upstreams, the next one as soon as one fails or is slow, and
// returns the first good reply, else the last bad one, else the last error. The
// tries that it waited for are appended to tried, unless that is nil.
func (f *forwarder) ask(ctx context.Context, pool *upstreams, m *dns.Msg, tried *[]attempt) (*dns.Msg, error) {
	plan := pool.plan(time.Now())
	f.probeDue(pool)
	if len(plan) == 0 {
		return nil, errNoUpstream
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt, len(plan))
	hedge := time.NewTimer(0)
	defer hedge.Stop()
	worst := attempt{err: errNoUpstream}
	until := map[*upstream]time.Time{} // the second try of an upstream ends with the first
	for next, pending := 0, 0; next < len(plan) || pending > 0; {
		more := hedge.C
		if next == len(plan) {
			more = nil
		}
		select {
		case <-more:
			u := plan[next]
			next, pending = next+1, pending+1
			if until[u].IsZero() {
				until[u] = time.Now().Add(f.cfg.TryTimeout)
			}
			go func(until time.Time) { results <- f.try(ctx, u, until, m.Copy()) }(until[u])
			hedge.Reset(f.cfg.Hedge)
		case a := <-results:
			pending--
			if tried != nil {
				*tried = append(*tried, a)
			}
			if a.good() {
				return a.reply, nil
			}
			if a.reply != nil || worst.reply == nil {
				worst = a
			}
			hedge.Reset(0)
		case <-ctx.Done():
			return worst.reply, ctxErr(ctx, worst)
		}
	}
	return worst.reply, worst.err
}

func ctxErr(ctx context.Context, worst attempt) error {
	if worst.reply != nil {
		return nil
	}
	return ctx.Err()
}

// try asks one upstream: over UDP, then over TCP if the reply is truncated, and
// without EDNS if it does not understand that. It ends at the time until.
func (f *forwarder) try(ctx context.Context, u *upstream, until time.Time, m *dns.Msg) attempt {
	tryCtx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	start := time.Now()
	r, err := f.cfg.Exchange(tryCtx, u.addr, false, m)
	if err == nil && m.IsEdns0() != nil && (r.Rcode == dns.RcodeFormatError || r.Rcode == dns.RcodeNotImplemented ||
		r.Rcode == dns.RcodeBadVers) {
		m.Extra = nil
		r, err = f.cfg.Exchange(tryCtx, u.addr, false, m)
	}
	if err == nil && r.Truncated {
		if full, tcpErr := f.cfg.Exchange(tryCtx, u.addr, true, m); tcpErr == nil {
			r = full
		}
	}
	if err == nil {
		f.met.countN(countUnreached, uint64(dropUnreached(r, m.Question[0].Name)))
	}
	a := attempt{u.addr, r, err, since(start)}
	if err != nil {
		a.err = fmt.Errorf("upstream %s: %w", u.addr, err)
	}
	f.recordAttempt(ctx, u, a)
	return a
}

// recordAttempt counts a try and updates the upstream's health: a server that
// replies is healthy, whatever it says of one name. A try that was cut short
// because another upstream was faster counts against it only if it was slow.
func (f *forwarder) recordAttempt(ctx context.Context, u *upstream, a attempt) {
	lost := a.err != nil && ctx.Err() != nil // another upstream was faster
	if !lost {
		f.met.tried(resultOf(a), a.took)
	}
	switch {
	case a.err == nil:
		u.succeeded()
	case lost && a.took < f.cfg.Hedge:
	default:
		if u.failed(time.Now()) && u.downLog.due(time.Now()) {
			f.log.Warn("dns upstream is failing, others are asked first", "upstream", u.addr, "error", a.err)
		}
	}
}

// upstreamQuery makes the query to send for q: the same question, our EDNS.
func upstreamQuery(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = q.RecursionDesired, q.CheckingDisabled,
		q.AuthenticatedData
	m.Question = append(m.Question, q.Question[0])
	o := q.IsEdns0()
	m.SetEdns0(1232, o != nil && o.Do())
	return m
}

// upstreamReply makes the reply to q from an upstream's, which it only reads:
// the question's case, TTLs less the age, or all ttl if that is not 0.
func upstreamReply(q, r *dns.Msg, age time.Duration, ttl uint32) *dns.Msg {
	m := newReply(q)
	m.Rcode, m.Truncated = r.Rcode, r.Truncated
	if m.Rcode > 0xF && q.IsEdns0() == nil { // an extended code needs an OPT
		m.Rcode = dns.RcodeServerFailure
	}
	o := q.IsEdns0()
	m.AuthenticatedData = r.AuthenticatedData && (q.AuthenticatedData || o != nil && o.Do())
	name := q.Question[0].Name
	adapt := func(rrs []dns.RR) []dns.RR {
		var out []dns.RR
		for _, rr := range rrs {
			if t := rr.Header().Rrtype; t == dns.TypeOPT || t == dns.TypeTSIG {
				continue
			}
			rr = dns.Copy(rr)
			h := rr.Header()
			if strings.EqualFold(h.Name, name) {
				h.Name = name
			}
			h.Ttl -= min(h.Ttl, uint32(age/time.Second))
			if ttl != 0 {
				h.Ttl = ttl
			}
			out = append(out, rr)
		}
		return out
	}
	m.Answer, m.Ns, m.Extra = adapt(r.Answer), adapt(r.Ns), adapt(r.Extra)
	return m
}
