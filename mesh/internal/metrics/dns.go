package metrics

import (
	"slices"

	"meshd/resolver"
)

// DNS sends the counters of the resolver and the state of its upstreams. Answers of the
// fast path count as taking no time: they are too many to be timed one by one.
func (e Emitter) DNS(s *resolver.Stats, upstreams []resolver.UpstreamStatus) {
	for _, q := range s.Queries {
		e.Counter("meshd_dns_queries_total", "Questions by type, transport and outcome.", q.Count, "type", q.Type, "proto",
			q.Proto, "outcome", q.Outcome)
		e.Histogram("meshd_dns_query_duration_seconds", "From question to answer; the fast path counts as 0.", q.Latency,
			latencies(), withRest(q.Buckets, q.Count),
			"type", q.Type, "proto", q.Proto, "outcome", q.Outcome)
	}
	for _, r := range s.Tries {
		e.Histogram("meshd_dns_upstream_duration_seconds", "Tries of upstreams by how they ended.", r.Latency,
			latencies(), withRest(r.Buckets, r.Count), "result", r.Result)
	}
	for _, u := range upstreams {
		e.Flag("meshd_dns_upstream_up", "1 for an upstream that is asked in its turn; the label says what it is otherwise.",
			u.State == resolver.UpstreamUp,
			"upstream", u.Addr.String(), "domain", u.Domain, "state", string(u.State))
	}
	for _, c := range s.Counters {
		e.Counter("meshd_dns_"+c.Name+"_total", c.Help, c.Value)
	}
	e.Gauge("meshd_dns_listeners", "Addresses that are answered on, those in sandboxes included.", float64(s.Listeners))
	e.Gauge("meshd_dns_in_flight", "Questions being answered by the ordinary path.", float64(s.InFlight))
	e.Gauge("meshd_dns_cache_entries", "Answers of upstreams in the cache.", float64(s.CacheEntries))
	e.Gauge("meshd_dns_cache_bytes", "Their size.", float64(s.CacheBytes))
}

// latencies are the bounds of the resolver's buckets, in seconds.
func latencies() []float64 {
	bounds := make([]float64, len(resolver.LatencyBuckets))
	for i, b := range resolver.LatencyBuckets {
		bounds[i] = b.Seconds()
	}
	return bounds
}

// withRest appends what no bucket has counted of the total.
func withRest(buckets []uint64, total uint64) []uint64 {
	rest := total
	for _, n := range buckets[:len(resolver.LatencyBuckets)] {
		rest -= min(n, rest)
	}
	return append(slices.Clone(buckets[:len(resolver.LatencyBuckets)]), rest)
}
