package resolver

// This file owns what is counted: the counters with their descriptions, the
// labels, and Stats. The daemon exports what is here as it stands.

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// queryOutcome says how a query ended.
type queryOutcome uint8

// The outcomes, a label of the query counters.
const (
	outcomeLocal     queryOutcome = iota // answered from a view
	outcomeNegative                      // NXDOMAIN or NODATA from a view
	outcomeForwarded                     // answered by an upstream
	outcomeCached                        // answered from the cache of upstream answers
	outcomeStale                         // answered by an expired cache entry (RFC 8767)
	outcomeFailed                        // no upstream answered: SERVFAIL
	outcomeRefused                       // malformed, or nothing that we serve
	outcomeDropped                       // over a limit: no reply
	outcomePanic                         // a bug of ours, answered with SERVFAIL
	outcomes
)

// String returns the label value.
func (o queryOutcome) String() string {
	return [...]string{"local", "negative", "forwarded", "cached", "stale", "failed", "refused", "dropped", "panic"}[o]
}

// How a try of an upstream ends: a label of the durations of upstreams.
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

// counter is one of the counters without labels.
type counter uint8

const (
	countMalformed counter = iota
	countTruncated
	countHeld
	countHeldFull
	countStrangers
	countLimited
	countDropped
	countTCPRefused
	countCoalesced
	countUpstreamFull
	countUnreached
	countLoops
	counters
)

// counterTexts has the name and the description of each counter, which is
// exported as meshd_dns_NAME_total. docs/OPERATIONS.md explains each to operators.
var counterTexts = [counters]struct{ name, help string }{
	countMalformed:    {"malformed", "Packets that are no DNS question."},
	countTruncated:    {"truncated", "Answers with TC."},
	countHeld:         {"held", "Questions for unknown names that waited for the first sync."}, // R4
	countHeldFull:     {"held_full", "Such questions that did not wait since too many did."},
	countStrangers:    {"strangers", "Questions and connections of clients that are not served: REFUSED, closed."}, // R8
	countLimited:      {"limited", "Questions over the limit per client."},
	countDropped:      {"dropped", "Questions of these two kinds that got no reply."},
	countTCPRefused:   {"tcp_refused", "TCP connections closed at once for being over a limit."},
	countCoalesced:    {"upstream_coalesced", "Questions that joined one in flight."},
	countUpstreamFull: {"upstream_full", "Questions to be forwarded over a limit."},
	countUnreached: {
		"upstream_unreached",
		"Records in answers of upstreams to which the question does not lead, dropped.",
	},
	countLoops: {"upstream_loops", "Times that an upstream was left out since it leads back to this node."},
}

// cell counts events of one kind with their durations.
type cell struct {
	count   atomic.Uint64
	nanos   atomic.Uint64
	buckets [len(LatencyBuckets) + 1]atomic.Uint64
}

// metrics counts. Safe for concurrent use.
type metrics struct {
	counts  [counters]atomic.Uint64
	queries [2][][outcomes]cell // over UDP and TCP, by countedAs
	tries   [results]cell       // of upstreams
}

func newMetrics() *metrics {
	m := &metrics{}
	for proto := range m.queries {
		m.queries[proto] = make([][outcomes]cell, len(servedTypes)+1)
	}
	return m
}

// count adds one to a counter.
func (m *metrics) count(c counter) { m.counts[c].Add(1) }

// countN adds n to a counter.
func (m *metrics) countN(c counter, n uint64) { m.counts[c].Add(n) }

// get returns the value of a counter.
func (m *metrics) get(c counter) uint64 { return m.counts[c].Load() }

// query counts a question by how it was answered.
func (m *metrics) query(tcp bool, qtype uint16, o queryOutcome, took time.Duration) {
	proto := 0
	if tcp {
		proto = 1
	}
	m.queries[proto][countedAs(qtype)][o].add(took)
}

// tried counts one try of an upstream.
func (m *metrics) tried(result int, took time.Duration) { m.tries[result].add(took) }

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

// Stats are the counters of a Server since its start, and what it has now.
type Stats struct {
	Counters []Counter       // all, in a stable order
	Queries  []QueryCount    // the combinations that occurred
	Tries    []UpstreamCount // of upstreams, the results that occurred

	InFlight     int64 // handlers running now
	Listeners    int   // in service now
	CacheEntries int   // answers of upstreams
	CacheBytes   int   // their packed size
}

// Counter is one counter without labels.
type Counter struct {
	Name, Help string // for the metric meshd_dns_NAME_total
	Value      uint64
}

// QueryCount is the counters of one combination of labels.
type QueryCount struct {
	Type    string        // one of state.RecordTypes, or other
	Proto   string        // udp or tcp
	Outcome string        // see queryOutcome
	Count   uint64        // queries
	Latency time.Duration // sum over the queries
	Buckets []uint64      // per bound of LatencyBuckets, not cumulative; the last is the rest
}

// UpstreamCount is how often a try of an upstream ended in one way.
type UpstreamCount struct {
	Result  string        // noerror, nxdomain, servfail, refused, other, timeout or error
	Count   uint64        // tries
	Latency time.Duration // sum over the tries
	Buckets []uint64      // per bound of LatencyBuckets, not cumulative; the last is the rest
}

func (m *metrics) stats() (s Stats) {
	for i, text := range counterTexts {
		s.Counters = append(s.Counters, Counter{text.name, text.help, m.counts[i].Load()})
	}
	for i := range m.tries {
		c := &m.tries[i]
		if n := c.count.Load(); n > 0 {
			s.Tries = append(s.Tries, UpstreamCount{resultLabels[i], n, time.Duration(c.nanos.Load()), c.read()})
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
