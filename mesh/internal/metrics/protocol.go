package metrics

import (
	"maps"
	"slices"

	"meshd/gossip"
	"meshd/state"
)

// Core sends the protocol's state. It is called within a step of the core.
func (e Emitter) Core(c *gossip.Core) {
	states := map[string]int{"alive": 1, "suspect": 0, "dead": 0, "left": 0}
	for _, m := range c.Members() {
		states[m.State]++
	}
	for _, s := range slices.Sorted(maps.Keys(states)) {
		e.Gauge("meshd_members", "Members by state, this node included.", float64(states[s]), "state", s)
	}
	e.Flag("meshd_preserving", "1 while self-preservation keeps vanished members served.", c.Preserving())
	e.Gauge("meshd_incarnation", "The node's incarnation.", float64(c.Store().Incarnation()))
	records, bytes, maxRecords, maxBytes := c.Store().Usage()
	for bound, v := range map[string][2]int{"held": {records, bytes}, "limit": {maxRecords, maxBytes}} {
		e.Gauge("meshd_tables_records", "Records of all tables, tombstones included, and how many there may be.",
			float64(v[0]), "of", bound)
		e.Gauge("meshd_tables_bytes", "Text of these records, and how much there may be.", float64(v[1]), "of", bound)
	}
	known := c.Room()
	e.held("meshd_nodes_known", "Other nodes that are known, in whatever state, and how many there may be.", known.Held,
		known.Limit)
	e.Gauge("meshd_table_owners_limit", "Owners that may have a stream in a table.",
		float64(c.Store().Limits().Owners))
	for _, t := range c.Store().Tables() {
		e.table(c, t)
	}
	e.stats(&c.Stats)
	e.frames(&c.Stats)
	pushes, pulls := c.Queued()
	e.Gauge("meshd_queue_length", "Waiting items.", float64(pushes), "queue", "push")
	e.Gauge("meshd_queue_length", "Waiting items.", float64(pulls), "queue", "pull")
}

// held sends how much there is of something, and how much there may be.
func (e Emitter) held(name, help string, held, limit int) {
	e.Gauge(name, help, float64(held), "of", "held")
	e.Gauge(name, help, float64(limit), "of", "limit")
}

// table sends one table.
func (e Emitter) table(c *gossip.Core, t *state.Table) {
	net := t.Network()
	e.Gauge("meshd_table_records", "Live records per network; the empty network is the global scope.", float64(t.Len()),
		"network", net)
	e.Gauge("meshd_table_owners", "Owners with a stream.", float64(t.Streams()), "network", net)
	e.Gauge("meshd_table_checksum", "Low 48 bits of the table checksum: equal on all nodes in agreement.",
		float64(t.Checksum()&(1<<48-1)), "network", net)
	e.Flag("meshd_table_synced", "1 after the first full exchange with a peer.", t.View().Synced(), "network", net)
	e.Gauge("meshd_table_graves", "Heads of dropped owners that are remembered.", float64(t.RetiredOwners()),
		"network", net)
	e.Counter("meshd_table_quarantined_total", "Records kept but not shown because they are unreadable.", t.Poison(),
		"network", net)
	records, bytes, staged, evicted := t.Usage()
	e.Gauge("meshd_table_held_records", "Records held, tombstones included.", float64(records), "network", net)
	e.Gauge("meshd_table_held_bytes", "Text of the records held.", float64(bytes), "network", net)
	e.Gauge("meshd_table_staged_bytes", "Text of deltas that are not complete.", float64(staged), "network", net)
	e.Counter("meshd_table_evicted_total", "Streams of owners that do not live, dropped to make room.", evicted, "network",
		net)
	barred := map[state.Bar]int{state.BarLoopback: 0, state.BarPool: 0, state.BarTwin: 0, state.BarPorts: 0}
	for _, b := range t.Barred() {
		barred[b.Bar]++
	}
	for _, bar := range slices.Sorted(maps.Keys(barred)) {
		e.Gauge("meshd_table_barred", "Endpoints that are carried and not shown, by reason.", float64(barred[bar]), "network",
			net, "reason", bar.String())
	}
	e.Counter("meshd_table_unbelieved_total",
		"Times in claims that are too far ahead to be true: shown, but neither believed nor carried.", t.Unbelieved(),
		"network", net)
	e.Gauge("meshd_table_divergence_seconds",
		"Time since the table last compared equal with a peer; 0 if it did within two comparisons.",
		c.Divergence(net).Seconds(), "network", net)
}

// stats sends the protocol's counters.
func (e Emitter) stats(s *gossip.Stats) {
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
		{"checks_waited", s.ChecksWaited},
		{"reports_put_off", s.ReportsPutOff},
		{"looks_put_off", s.LooksPutOff},
		{"refutations", s.Refutations},
		{"refutations_dropped", s.RefutationsDropped},
		{"reaps_dropped", s.ReapsDropped},
		{"false_goodbyes", s.FalseGoodbyes},
		{"goodbyes_dropped", s.GoodbyesDropped},
		{"reincarnations", s.Reincarnations},
		{"carries", s.Carries},
		{"carries_put_off", s.CarriesLater},
	} {
		e.Counter("meshd_gossip_"+c.name+"_total", help, c.v)
	}
}

// frames sends the bytes of each kind of frame.
func (e Emitter) frames(s *gossip.Stats) {
	for typ := range s.In {
		if name := gossip.FrameName(typ); name != "" {
			e.Counter("meshd_gossip_frame_bytes_total", "Bytes of protocol frames by kind.", s.In[typ], "frame", name,
				"direction", "in")
			e.Counter("meshd_gossip_frame_bytes_total", "Bytes of protocol frames by kind.", s.Out[typ], "frame", name,
				"direction", "out")
		}
	}
}

// Host sends the counters of the protocol's sockets and queues.
func (e Emitter) Host(s gossip.HostStats) {
	e.Counter("meshd_transport_in_bytes_total", "Bytes from other nodes over streams, memberlist's own included.", s.In)
	e.Counter("meshd_transport_out_bytes_total", "Bytes to other nodes, memberlist's own included.", s.Out)
	for q, v := range map[string][2]uint64{
		"inbox": {uint64(s.Inbox), s.InboxDropped},
		"bulk":  {uint64(s.Bulk), s.BulkDropped},
	} {
		e.Gauge("meshd_queue_length", "Waiting items.", float64(v[0]), "queue", q)
		e.Counter("meshd_queue_dropped_total", "Items dropped because the queue was full; repair makes up for them.", v[1],
			"queue", q)
	}
	e.Gauge("meshd_queue_bytes", "Bytes of the waiting items.", float64(s.InboxBytes), "queue", "inbox")
	e.Gauge("meshd_queue_bytes", "Bytes of the waiting items.", float64(s.BulkBytes), "queue", "bulk")
	e.Counter("meshd_send_failed_total", "Packets that could not be sent.", s.SendFailed)
	e.Counter("meshd_bulk_failed_total", "Streams that failed.", s.BulkFailed)
	e.Counter("meshd_joins_total", "Joins by the reconnect loop.", s.Joins, "result", "ok")
	e.Counter("meshd_joins_total", "Joins by the reconnect loop.", s.JoinsFailed, "result", "failed")
	e.Counter("meshd_joins_total", "Joins by the reconnect loop.", s.Announced, "result", "announced")
	e.Counter("meshd_panics_total", "Steps of the protocol that panicked and were dropped: always a fault of meshd.",
		s.Panics)
	e.Counter("meshd_transport_rejected_total", "Packets and streams that would have done harm and were not read.",
		s.Rejected)
	e.Counter("meshd_transport_refused_total", "Streams over the bound on their number.", s.Refused)
	e.held("meshd_peers", "Nodes that are remembered to be found again, and how many may be.", s.Peers, s.MaxPeers)
	e.Gauge("meshd_membership_health_score", "memberlist's own health, 0 is best.", float64(s.Health))
}
