package resolver

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Outcome says how a query ended.
type Outcome uint8

// The outcomes, a label of the query counters.
const (
	OutcomeLocal     Outcome = iota // answered from a view
	OutcomeNegative                 // NXDOMAIN or NODATA from a view
	OutcomeForwarded                // answered by an upstream
	OutcomeCached                   // answered from the cache of upstream answers
	OutcomeStale                    // answered by an expired cache entry (RFC 8767)
	OutcomeFailed                   // no upstream answered: SERVFAIL
	OutcomeRefused                  // malformed, or nothing that we serve
	OutcomeDropped                  // over a limit: no reply
	OutcomePanic                    // a bug of ours, answered with SERVFAIL
	outcomes
)

// String returns the label value.
func (o Outcome) String() string {
	return [...]string{"local", "negative", "forwarded", "cached", "stale", "failed", "refused", "dropped", "panic"}[o]
}

// The ways in which a try of an upstream ends, a label of the upstream's
// durations.
const (
	resultSuccess = iota
	resultNXDomain
	resultServfail
	resultRefused
	resultOther   // another response code
	resultTimeout // no reply in time
	resultError   // a reply that cannot be read, a refused connection
	results
)

var resultLabels = [results]string{"noerror", "nxdomain", "servfail", "refused", "other", "timeout", "error"}

// resultOf says how a try ended.
func resultOf(a attempt) int {
	if a.err != nil {
		if n, ok := errors.AsType[net.Error](a.err); ok && n.Timeout() || errors.Is(a.err, context.DeadlineExceeded) {
			return resultTimeout
		}
		return resultError
	}
	switch a.reply.Rcode {
	case dns.RcodeSuccess:
		return resultSuccess
	case dns.RcodeNameError:
		return resultNXDomain
	case dns.RcodeServerFailure:
		return resultServfail
	case dns.RcodeRefused:
		return resultRefused
	}
	return resultOther
}

// LatencyBuckets are the upper bounds of the latency histogram.
var LatencyBuckets = [...]time.Duration{
	50 * time.Microsecond, 200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond,
	25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second,
}

type cell struct {
	count   atomic.Uint64
	nanos   atomic.Uint64
	buckets [len(LatencyBuckets) + 1]atomic.Uint64
}

// metrics counts. Safe for concurrent use.
type metrics struct {
	// queries over UDP and TCP, by countedAs and outcome.
	queries   [2][][outcomes]cell
	malformed atomic.Uint64
	held      atomic.Uint64
	heldFull  atomic.Uint64
	truncated atomic.Uint64
	tcpFull   atomic.Uint64

	strangers, overRate, gateDropped atomic.Uint64 // see gate

	upstream upstreamMetrics
}

func newMetrics() *metrics {
	m := &metrics{}
	for proto := range m.queries {
		m.queries[proto] = make([][outcomes]cell, len(servedTypes)+1)
	}
	return m
}

// add counts one duration.
func (c *cell) add(took time.Duration) {
	c.count.Add(1)
	c.nanos.Add(uint64(took))
	i := 0
	for i < len(LatencyBuckets) && took > LatencyBuckets[i] {
		i++
	}
	c.buckets[i].Add(1)
}

// addUntimed counts n durations of 0.
func (c *cell) addUntimed(n uint64) {
	if n > 0 {
		c.count.Add(n)
		c.buckets[0].Add(n)
	}
}

func (c *cell) read() (buckets []uint64) {
	for i := range c.buckets {
		buckets = append(buckets, c.buckets[i].Load())
	}
	return buckets
}

type upstreamMetrics struct {
	tries, failures, coalesced, full, loops atomic.Uint64
	unreached                               atomic.Uint64 // records
	nanos                                   atomic.Uint64
	results                                 [results]cell
}

// tried counts one try of an upstream.
func (m *upstreamMetrics) tried(result int, took time.Duration) { m.results[result].add(took) }

func (m *metrics) query(tcp bool, qtype uint16, o Outcome, took time.Duration) {
	proto := 0
	if tcp {
		proto = 1
	}
	m.queries[proto][countedAs(qtype)][o].add(took)
}

// QueryCount is the counters of one combination of labels.
type QueryCount struct {
	Type    string        // one of state.RecordTypes, or other
	Proto   string        // udp or tcp
	Outcome string        // see Outcome
	Count   uint64        // queries
	Latency time.Duration // sum over the queries
	Buckets []uint64      // per bound of LatencyBuckets, not cumulative; the last is the rest
}

// Stats are the counters of a Server since its start.
type Stats struct {
	Queries   []QueryCount // the combinations that occurred
	Malformed uint64       // packets that are no DNS query
	Held      uint64       // questions that waited for the first sync (R4)
	HeldFull  uint64       // questions that did not wait as too many did
	Truncated uint64       // replies with TC
	TCPFull   uint64       // TCP connections closed at once for being over a limit
	Strangers uint64       // questions and connections of clients that are not served: REFUSED, closed (R8)
	Limited   uint64       // questions over the limit per client
	Dropped   uint64       // of those two kinds, the questions that got no reply
	InFlight  int64        // handlers running now
	Listeners int          // in service now

	UpstreamTries     uint64        // queries sent to upstreams
	UpstreamFailures  uint64        // without a usable answer
	UpstreamLatency   time.Duration // sum over the answered tries
	UpstreamCoalesced uint64        // questions that joined one in flight
	UpstreamFull      uint64        // questions over a concurrency limit
	UpstreamUnreached uint64        // records of answers to which the question does not lead, dropped
	UpstreamLoops     uint64        // times that an upstream was left out because it leads back to us
	UpstreamResults   []UpstreamCount
	CacheEntries      int
	CacheBytes        int
}

// UpstreamCount is how often a try of an upstream ended in one way.
type UpstreamCount struct {
	Result  string        // noerror, nxdomain, servfail, refused, other, timeout or error
	Count   uint64        // tries
	Latency time.Duration // sum over the tries
	Buckets []uint64      // per bound of LatencyBuckets, not cumulative; the last is the rest
}

func (m *metrics) stats() Stats {
	s := Stats{
		Malformed: m.malformed.Load(), Held: m.held.Load(), HeldFull: m.heldFull.Load(),
		Truncated: m.truncated.Load(), TCPFull: m.tcpFull.Load(),
		Strangers: m.strangers.Load(), Limited: m.overRate.Load(), Dropped: m.gateDropped.Load(),
		UpstreamTries: m.upstream.tries.Load(), UpstreamFailures: m.upstream.failures.Load(),
		UpstreamCoalesced: m.upstream.coalesced.Load(), UpstreamFull: m.upstream.full.Load(),
		UpstreamLatency: time.Duration(m.upstream.nanos.Load()), UpstreamLoops: m.upstream.loops.Load(),
		UpstreamUnreached: m.upstream.unreached.Load(),
	}
	for i := range m.upstream.results {
		c := &m.upstream.results[i]
		if n := c.count.Load(); n > 0 {
			s.UpstreamResults = append(s.UpstreamResults, UpstreamCount{
				resultLabels[i], n, time.Duration(c.nanos.Load()),
				c.read(),
			})
		}
	}
	for p, proto := range [...]string{"udp", "tcp"} {
		for t := range m.queries[p] {
			for o := range outcomes {
				c := &m.queries[p][t][o]
				if c.count.Load() == 0 {
					continue
				}
				s.Queries = append(s.Queries, QueryCount{
					Type: typeLabel(t), Proto: proto, Outcome: o.String(),
					Count: c.count.Load(), Latency: time.Duration(c.nanos.Load()), Buckets: c.read(),
				})
			}
		}
	}
	return s
}
