package mesh

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"meshd/gossip"
	"meshd/lb/hostcheck"
	"meshd/mesh/lookout"
	"meshd/state"
)

// metrics is the node's registry: everything is read when asked for, so that
// counting costs nothing in between.
type metrics struct {
	node        *Node
	reg         *prometheus.Registry
	propagation prometheus.Histogram
}

func newMetrics(n *Node) *metrics {
	m := &metrics{node: n, reg: prometheus.NewRegistry()}
	m.propagation = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "meshd_propagation_seconds", Help: "Age of beacons of other nodes on arrival, by both nodes' wall clocks.",
		Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
	})
	m.reg.MustRegister(m, m.propagation, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) gather(context.Context) ([]*dto.MetricFamily, error) { return m.reg.Gather() }

// Describe implements prometheus.Collector: the set of metrics is open.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	e := emitter{ch}
	_ = m.node.host.Do(ctx, func(c *gossip.Core, now time.Duration) { e.core(c) })
	e.host(m.node.host.Stats())
	e.balancers(m.node)
	e.dns(m.node)
	e.sandboxes(m.node)
	e.lookout(m.node.lookout)
	disk := m.node.dir.Trouble() != ""
	e.gauge("meshd_degraded", "Standing conditions that meshctl status explains.",
		float64(len(m.node.notices.All())+len(m.node.dnsTrouble()))+b2f(disk))
	e.gauge("meshd_data_dir_failing", "1 while the data directory does not take what is to be saved.", b2f(disk))
	registered := m.node.reg.Stats()
	e.counter("meshd_registry_writes_total", "Writes of tasks.json; each holds all changes that waited.",
		registered.Writes)
	e.counter("meshd_registry_changes_total", "Changes of what is registered, carried or claimed here.",
		registered.Changes)
	e.counter("meshd_registry_failures_total", "Writes of tasks.json that failed; what was asked for was refused.",
		registered.Failures)
	e.gauge("meshd_queue_length", "Waiting items.", float64(registered.Waiting), "queue", "registrations")
	e.gauge("meshd_queue_length", "Waiting items.", float64(len(m.node.happened.queue)), "queue", "events")
	e.counter("meshd_queue_dropped_total", "Items dropped because the queue was full; repair makes up for them.",
		m.node.happened.dropped.Load(), "queue", "events")
	if f := m.node.cfg.LogDropped; f != nil {
		e.counter("meshd_log_dropped_total", "Log lines dropped because nobody read the log.", f())
	}
	e.counter("meshd_control_socket_remade_total", "Times that somebody removed the control socket and it was made again.",
		m.node.door.times.Load())
	e.gauge("meshd_events_index", "Index of the newest event of meshctl watch.", float64(m.node.events.Index()))
}

type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) send(t prometheus.ValueType, name, help string, v float64, labels ...string) {
	var keys, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		keys, values = append(keys, labels[i]), append(values, labels[i+1])
	}
	e.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, keys, nil), t, v, values...)
}

func (e emitter) gauge(name, help string, v float64, labels ...string) {
	e.send(prometheus.GaugeValue, name, help, v, labels...)
}

func (e emitter) counter(name, help string, v uint64, labels ...string) {
	e.send(prometheus.CounterValue, name, help, float64(v), labels...)
}

func (e emitter) core(c *gossip.Core) {
	states := map[string]int{"alive": 1, "suspect": 0, "dead": 0, "left": 0}
	for _, m := range c.Members() {
		states[m.State]++
	}
	for _, s := range slices.Sorted(maps.Keys(states)) {
		e.gauge("meshd_members", "Members by state, this node included.", float64(states[s]), "state", s)
	}
	e.gauge("meshd_preserving", "1 while self-preservation keeps vanished members served.", b2f(c.Preserving()))
	e.gauge("meshd_incarnation", "The node's incarnation.", float64(c.Store().Incarnation()))
	records, bytes, maxRecords, maxBytes := c.Store().Usage()
	for bound, v := range map[string][2]int{"held": {records, bytes}, "limit": {maxRecords, maxBytes}} {
		e.gauge("meshd_tables_records", "Records of all tables, tombstones included, and how many there may be.",
			float64(v[0]), "of", bound)
		e.gauge("meshd_tables_bytes", "Text of these records, and how much there may be.", float64(v[1]), "of", bound)
	}
	for _, t := range c.Store().Tables() {
		e.table(c, t)
	}
	e.stats(&c.Stats)
	e.frames(&c.Stats)
	pushes, pulls := c.Queued()
	e.gauge("meshd_queue_length", "Waiting items.", float64(pushes), "queue", "push")
	e.gauge("meshd_queue_length", "Waiting items.", float64(pulls), "queue", "pull")
}

func (e emitter) table(c *gossip.Core, t *state.Table) {
	net := t.Network()
	e.gauge("meshd_table_records", "Live records per network; the empty network is the global scope.", float64(t.Len()),
		"network", net)
	e.gauge("meshd_table_owners", "Owners with a stream.", float64(len(t.Owners())), "network", net)
	e.gauge("meshd_table_checksum", "Low 48 bits of the table checksum: equal on all nodes in agreement.",
		float64(t.Checksum()&(1<<48-1)), "network", net)
	e.gauge("meshd_table_synced", "1 after the first full exchange with a peer.", b2f(t.View().Synced()), "network", net)
	e.gauge("meshd_table_graves", "Heads of dropped owners that are remembered.", float64(t.Graves()), "network", net)
	e.counter("meshd_table_quarantined_total", "Records kept but not shown because they are unreadable.", t.Poison(),
		"network", net)
	records, bytes, staged, evicted := t.Usage()
	e.gauge("meshd_table_held_records", "Records held, tombstones included.", float64(records), "network", net)
	e.gauge("meshd_table_held_bytes", "Text of the records held.", float64(bytes), "network", net)
	e.gauge("meshd_table_staged_bytes", "Text of deltas that are not complete.", float64(staged), "network", net)
	e.counter("meshd_table_evicted_total", "Streams of owners that do not live, dropped to make room.", evicted, "network",
		net)
	barred := map[state.Bar]int{state.BarLoopback: 0, state.BarPool: 0, state.BarTwin: 0, state.BarPorts: 0}
	for _, b := range t.Barred() {
		barred[b.Bar]++
	}
	for _, bar := range slices.Sorted(maps.Keys(barred)) {
		e.gauge("meshd_table_barred", "Endpoints that are carried and not shown, by reason.", float64(barred[bar]), "network",
			net, "reason", bar.String())
	}
	e.counter("meshd_table_unbelieved_total",
		"Times in claims that are too far ahead to be true: shown, but neither believed nor carried.", t.Unbelieved(),
		"network", net)
	e.gauge("meshd_table_divergence_seconds",
		"Time since the table last compared equal with a peer; 0 if it did within two comparisons.",
		c.Divergence(net).Seconds(), "network", net)
}

func (e emitter) stats(s *gossip.Stats) {
	const help = "Protocol counter; see docs/OPERATIONS.md."
	for _, c := range []struct {
		name string
		v    uint64
	}{
		{"payload_in_bytes", s.BytesIn},
		{"payload_out_bytes", s.BytesOut},
		{"datagrams_out", s.DatagramsOut},
		{"streams_out", s.StreamsOut},
		{"pushes", s.Pushes},
		{"push_dropped", s.PushDropped},
		{"deltas_in", s.DeltasIn},
		{"deltas_out", s.DeltasOut},
		{"deltas_applied", s.Applied},
		{"deltas_duplicate", s.Duplicates},
		{"gaps", s.Gaps},
		{"wants", s.Wants},
		{"pull_timeouts", s.PullTimeouts},
		{"probes", s.Probes},
		{"mismatches", s.Mismatches},
		{"hints", s.HotSent},
		{"malformed", s.Malformed},
		{"refused", s.Refused},
		{"unknown_frames", s.UnknownFrames},
		{"frames_dropped", s.FramesDropped},
		{"answers_dropped", s.AnswersDropped},
		{"sends_dropped", s.SendsDropped},
		{"events_dropped", s.EventsDropped},
		{"asks_dropped", s.AsksDropped},
		{"strangers", s.Strangers},
		{"oversized", s.Oversized},
		{"deaths_checked", s.Verified},
		{"false_alarms", s.FalseAlarms},
		{"reaps_dropped", s.ReapsDropped},
		{"false_goodbyes", s.FalseGoodbyes},
		{"goodbyes_dropped", s.GoodbyesDropped},
		{"reincarnations", s.Reincarnations},
		{"carries", s.Carries},
		{"carries_put_off", s.CarriesLater},
	} {
		e.counter("meshd_gossip_"+c.name+"_total", help, c.v)
	}
}

func (e emitter) frames(s *gossip.Stats) {
	for typ := range s.In {
		if name := gossip.FrameName(typ); name != "" {
			e.counter("meshd_gossip_frame_bytes_total", "Bytes of protocol frames by kind.", s.In[typ], "frame", name,
				"direction", "in")
			e.counter("meshd_gossip_frame_bytes_total", "Bytes of protocol frames by kind.", s.Out[typ], "frame", name,
				"direction", "out")
		}
	}
}

func (e emitter) host(s gossip.HostStats) {
	e.counter("meshd_transport_in_bytes_total", "Bytes from other nodes over streams, memberlist's own included.", s.In)
	e.counter("meshd_transport_out_bytes_total", "Bytes to other nodes, memberlist's own included.", s.Out)
	for q, v := range map[string][2]uint64{
		"inbox": {uint64(s.Inbox), s.InboxDropped},
		"bulk":  {uint64(s.Bulk), s.BulkDropped},
	} {
		e.gauge("meshd_queue_length", "Waiting items.", float64(v[0]), "queue", q)
		e.counter("meshd_queue_dropped_total", "Items dropped because the queue was full; repair makes up for them.", v[1],
			"queue", q)
	}
	e.gauge("meshd_queue_bytes", "Bytes of the waiting items.", float64(s.InboxBytes), "queue", "inbox")
	e.gauge("meshd_queue_bytes", "Bytes of the waiting items.", float64(s.BulkBytes), "queue", "bulk")
	e.counter("meshd_send_failed_total", "Packets that could not be sent.", s.SendFailed)
	e.counter("meshd_bulk_failed_total", "Streams that failed.", s.BulkFailed)
	e.counter("meshd_joins_total", "Joins by the reconnect loop.", s.Joins, "result", "ok")
	e.counter("meshd_joins_total", "Joins by the reconnect loop.", s.JoinsFailed, "result", "failed")
	e.counter("meshd_panics_total", "Steps of the protocol that panicked and were dropped: always a fault of meshd.",
		s.Panics)
	e.counter("meshd_transport_rejected_total", "Packets and streams that would have done harm and were not read.",
		s.Rejected)
	e.counter("meshd_transport_refused_total", "Streams over the bound on their number.", s.Refused)
	e.gauge("meshd_membership_health_score", "memberlist's own health, 0 is best.", float64(s.Health))
}

// lookout sends what was found of the host, and the looks at it.
func (e emitter) lookout(l *lookout.Lookout) {
	found := l.Findings()
	count := map[hostcheck.Code]int{}
	for _, f := range found {
		count[f.Code]++
	}
	for _, code := range hostcheck.Codes() {
		e.gauge("meshd_host_findings", "What of the host is against meshd, by kind; meshctl doctor says more.",
			float64(count[code]), "code", string(code))
	}
	c := l.Counts()
	e.counter("meshd_host_looks_total", "Looks at the host for what is against meshd.", c.Looks)
	e.counter("meshd_host_looks_inside_total", "Looks into sandboxes for the same.", c.Inside)
	e.send(prometheus.CounterValue, "meshd_host_looks_seconds_total", "Time that they took.", c.Spent.Seconds())
	e.counter("meshd_host_mended_total",
		"How often ports of bridges were put into hairpin mode, devices made to forward, and rules added to chains of "+
			"firewalls or taken back from there.", c.Fixes)
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
