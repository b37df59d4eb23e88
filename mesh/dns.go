package mesh

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshd/gossip"
	"meshd/resolver"
)

func (n *Node) openDNS() (err error) {
	clients, own := n.dnsClients()
	n.dns, err = resolver.New(resolver.Config{
		Source: n.host.Source(), Log: n.log, Domain: n.cfg.Domain, TTL: time.Duration(n.cfg.TTL), QueryLog: n.cfg.QueryLog,
		VIPsUsable: n.balancer.Working, WhyNoVIPs: n.whyNoVIPs, RTT: n.host.RTT, Notes: n.Notes,
		Clients: clients, HostAddrs: own, LocalTask: n.localTask,
		Forward: resolver.ForwardConfig{Upstreams: n.cfg.Servers, Domains: n.cfg.DomainServers},
	})
	if err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	return nil
}

// listenDNS opens the addresses of the host. The node's own networks and tasks
// must be there by then: without them every client is a stranger, whose names
// do not exist.
func (n *Node) listenDNS() error {
	for _, a := range n.cfg.DNSAddrs {
		b, err := n.dns.Listen(resolver.Listener{Addr: a})
		if err != nil {
			return fmt.Errorf("dns: %w; %s", err, gossip.ListenHint(err,
				"another name server, such as systemd-resolved, dnsmasq or a meshd,"))
		}
		n.dnsAddrs = append(n.dnsAddrs, b.Addr())
	}
	return nil
}

// dnsTrouble says what keeps names of others from being resolved.
func (n *Node) dnsTrouble() (degraded []string) {
	if n.dns.Stats().Listeners == 0 {
		return nil
	}
	up := map[string]int{} // servers that can be asked, per domain
	for _, u := range n.dns.Upstreams() {
		up[u.Domain] += 0
		switch u.State {
		case resolver.UpstreamUp:
			up[u.Domain]++
		case resolver.UpstreamLooping:
			degraded = append(degraded, fmt.Sprintf("dns: upstream %s sends this node's questions back to it: not asked "+
				"until it stops", u.Addr))
		case resolver.UpstreamSelf:
			degraded = append(degraded, fmt.Sprintf("dns: upstream %s is this node itself: not asked; name other servers "+
				"with --upstream", u.Addr))
		case resolver.UpstreamDown:
			degraded = append(degraded, fmt.Sprintf("dns: upstream %s does not answer: asked last", u.Addr))
		}
	}
	if len(up) == 0 {
		degraded = append(degraded, "dns: no upstream is known, so names of others fail: name servers in /etc/resolv.conf "+
			"or with --upstream")
	}
	return degraded
}

// dns sends the counters of the resolver. Answers of the fast path count as
// taking no time: they are too many to be timed one by one.
func (e emitter) dns(n *Node) {
	s := n.dns.Stats()
	for _, q := range s.Queries {
		e.counter("meshd_dns_queries_total", "Questions by type, transport and outcome.", q.Count, "type", q.Type, "proto",
			q.Proto, "outcome", q.Outcome)
		e.durations("meshd_dns_query_duration_seconds", "From question to answer; the fast path counts as 0.", q.Count,
			q.Latency, q.Buckets,
			"type", q.Type, "proto", q.Proto, "outcome", q.Outcome)
	}
	for _, r := range s.Tries {
		e.durations("meshd_dns_upstream_duration_seconds", "Tries of upstreams by how they ended.", r.Count, r.Latency,
			r.Buckets, "result", r.Result)
	}
	for _, u := range n.dns.Upstreams() {
		e.gauge("meshd_dns_upstream_up", "1 for an upstream that is asked in its turn; the label says what it is otherwise.",
			b2f(u.State == resolver.UpstreamUp),
			"upstream", u.Addr.String(), "domain", u.Domain, "state", string(u.State))
	}
	for _, c := range s.Counters {
		e.counter("meshd_dns_"+c.Name+"_total", c.Help, c.Value)
	}
	e.gauge("meshd_dns_listeners", "Addresses that are answered on, those in sandboxes included.", float64(s.Listeners))
	e.gauge("meshd_dns_in_flight", "Questions being answered by the ordinary path.", float64(s.InFlight))
	e.gauge("meshd_dns_cache_entries", "Answers of upstreams in the cache.", float64(s.CacheEntries))
	e.gauge("meshd_dns_cache_bytes", "Their size.", float64(s.CacheBytes))
}

// durations sends counts per bound of resolver.LatencyBuckets.
func (e emitter) durations(name, help string, count uint64, sum time.Duration, counts []uint64, labels ...string) {
	var keys, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		keys, values = append(keys, labels[i]), append(values, labels[i+1])
	}
	buckets, below := map[float64]uint64{}, uint64(0)
	for i, bound := range resolver.LatencyBuckets {
		below += counts[i]
		buckets[bound.Seconds()] = below
	}
	e.ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc(name, help, keys, nil), count, sum.Seconds(), buckets,
		values...)
}
