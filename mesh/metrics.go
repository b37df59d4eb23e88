package mesh

import (
	"context"
	"io"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/mesh/internal/metrics"
	"meshd/mesh/source/docker"
)

// Metrics implements control.NodeBackend.
func (n *Node) Metrics(_ context.Context, w io.Writer) error { return n.metrics.Write(w) }

// collection reads what the parts of a node count.
type collection struct{ *Node }

// all sends the metrics of all parts.
func (n collection) all(ctx context.Context, e metrics.Emitter) {
	_ = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { e.Core(c) })
	e.Host(n.host.Stats())
	n.balancing(e)
	resolved := n.dns.Stats()
	e.DNS(&resolved, n.dns.Upstreams())
	n.collectSandboxes(e)
	n.collectDocker(e)
	e.Lookout(n.lookout.Findings(), n.lookout.Counts())
	failing := 0.0
	if n.dir.Trouble() != "" {
		failing = 1
	}
	e.Gauge("meshd_degraded", "Standing conditions that meshctl status explains.",
		float64(len(n.notices.All())+len(n.dns.Troubles()))+failing)
	e.Gauge("meshd_data_dir_failing", "1 while the data directory does not take what is to be saved.", failing)
	registered := n.reg.Stats()
	e.Counter("meshd_registry_writes_total", "Transactions of the store; each holds all changes that waited.",
		registered.Writes)
	e.Counter("meshd_registry_changes_total", "Changes of what is registered, carried or claimed here.",
		registered.Changes)
	e.Counter("meshd_registry_failures_total", "Transactions that failed; what was asked for was refused.",
		registered.Failures)
	stored := n.db.Stats()
	e.Gauge("meshd_store_records", "Records in meshd.db.", float64(stored.Records))
	e.Gauge("meshd_store_bytes", "Size of meshd.db.", float64(stored.Size))
	e.Gauge("meshd_store_last_write_seconds", "What the last transaction on meshd.db took.", stored.Last.Seconds())
	e.Counter("meshd_store_made_total", "Times that meshd.db was made anew, the start included.", stored.Made)
	n.peers.collect(e)
	e.Gauge("meshd_queue_length", "Waiting items.", float64(registered.Waiting), "queue", "registrations")
	e.Gauge("meshd_queue_length", "Waiting items.", float64(len(n.coreEvents.queue)), "queue", "events")
	e.Counter("meshd_queue_dropped_total", "Items dropped because the queue was full; repair makes up for them.",
		n.coreEvents.dropped.Load(), "queue", "events")
	if f := n.cfg.LogDropped; f != nil {
		e.Counter("meshd_log_dropped_total", "Log lines dropped because nobody read the log.", f())
	}
	e.Counter("meshd_control_socket_remade_total", "Times that somebody removed the control socket and it was made again.",
		n.socket.remade.Load())
	e.Gauge("meshd_events_index", "Index of the newest event of meshctl watch.", float64(n.events.Index()))
}

// balancing sends the metrics of all load balancers, those of sandboxes too, and of
// what they watch ("meshctl lb ls" shows services and backends).
func (n collection) balancing(e metrics.Emitter) {
	for _, name := range n.Node.balancing.Names() {
		b, ok := n.Node.balancing.Balancer(name)
		if !ok {
			continue // detached since
		}
		c := b.Counters()
		latest, _ := b.LastReport()
		e.Balancer(name, &c, latest)
		e.Namespace(name, b.Facts.Counters())
		e.Rules(name, b.Rules.Counters(), b.Rules.Err())
	}
}

// collectSandboxes sends how many sandboxes there are, and what became of others.
func (n *Node) collectSandboxes(e metrics.Emitter) {
	s := n.boxes.Stats()
	for state, count := range s.States {
		e.Gauge("meshd_sandboxes", "Sandboxes by state.", float64(count), "state", state)
	}
	const help = "Sandboxes attached, detached and lost with their namespaces."
	e.Counter("meshd_sandbox_changes_total", help, s.Attached, "change", "attached")
	e.Counter("meshd_sandbox_changes_total", help, s.Detached, "change", "detached")
	e.Counter("meshd_sandbox_changes_total", help, s.Lost, "change", "lost")
	e.Counter("meshd_sandbox_redirects_total", "Redirects of port 53 that somebody had removed, and that were made again.",
		s.Redirects)
	e.Counter("meshd_sandbox_redirects_prompted_total", "Of them, those whose removal the kernel told.",
		s.RedirectsHeard)
}

// collectDocker sends what the source of containers counts; without one, zeros.
func (n *Node) collectDocker(e metrics.Emitter) {
	var s docker.Stats
	if n.docker != nil {
		s = n.docker.Stats()
	}
	up := 0.0
	if s.Connected {
		up = 1
	}
	const origin, engine = "origin", "docker"
	e.Gauge("meshd_source_connected", "1 while the container engine answers.", up, origin, engine)
	e.Counter("meshd_source_connections_total", "Connections to the container engine that were made.", s.Connections,
		origin, engine)
	e.Counter("meshd_source_events_total", "Events of the container engine.", s.Events, origin, engine)
	const lists, inspects = "Lists of all containers.", "Looks at one container."
	e.Counter("meshd_source_lists_total", lists, s.Lists-s.ListFailures, origin, engine, "result", "ok")
	e.Counter("meshd_source_lists_total", lists, s.ListFailures, origin, engine, "result", "failed")
	e.Counter("meshd_source_inspects_total", inspects, s.Inspects-s.InspectFailures, origin, engine, "result", "ok")
	e.Counter("meshd_source_inspects_total", inspects, s.InspectFailures, origin, engine, "result", "failed")
	e.Counter("meshd_source_missed_total", "Changes that no event told, found by a list: 0 if all is well.", s.Missed,
		origin, engine)
	for _, state := range []string{
		control.UnitServed, control.UnitWaiting, control.UnitRefused, control.UnitIgnored, control.UnitStopped,
	} {
		e.Gauge("meshd_source_units", "Containers that are looked after, by state.", float64(s.Containers[state]),
			origin, engine, "state", state)
	}
	e.Gauge("meshd_queue_length", "Waiting items.", float64(s.Waiting), "queue", "containers")
}
