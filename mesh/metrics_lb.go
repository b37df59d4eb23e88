package mesh

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshd/lb"
	"meshd/lb/hostwatch"
)

// balancers tells of every load balancer of the node. The label sandbox is
// empty for the host's; there is nothing per service or backend, so that the
// number of series does not grow with the mesh ("meshctl lb ls" has those).
func (e emitter) balancers(n *Node) {
	for _, name := range n.balancers.names() {
		b := n.balancers.get(name)
		if b == nil {
			continue // detached meanwhile
		}
		c := b.Counters()
		latest, _ := b.LastReport()
		e.lbState(name, &c)
		e.lbOperations(name, &c)
		e.lbVerify(name, &c, latest)
	}
	e.hostFacts("", n.watch.Counters())
	e.rules("", n.rules)
	for _, b := range n.boxes.list() {
		e.hostFacts(b.name, b.facts.Counters())
		e.rules(b.name, b.rules)
	}
}

// hostFacts tells how the addresses and routes of a namespace are followed.
func (e emitter) hostFacts(box string, c hostwatch.Counters) {
	e.counter("meshd_host_reads_total", "Readings of addresses, routes and routing rules.", c.Reads, "sandbox", box)
	e.counter("meshd_host_read_failures_total", "Readings that failed, and openings of the kernel's sockets.", c.Errors,
		"sandbox", box)
	e.counter("meshd_host_events_missed_total", "Times that the kernel could not tell what changed; everything was read.",
		c.Missed, "sandbox", box)
	e.counter("meshd_host_changes_total", "Times that what counts for pools was another than before.", c.Changes,
		"sandbox", box)
}

func (e emitter) lbState(box string, c *lb.Counters) {
	e.gauge("meshd_lb_info", "1; the label says which driver balances.", 1, "sandbox", box, "driver", orNone(c.Driver))
	e.gauge("meshd_lb_ready", "1 if a driver works and is set up.", b2f(c.Ready), "sandbox", box)
	e.gauge("meshd_lb_unsupported", "1 if no driver works here: vip services are answered with their tasks.",
		b2f(c.Unsupported), "sandbox", box)
	e.gauge("meshd_lb_services", "Services in the kernel.", float64(c.Services), "sandbox", box)
	e.gauge("meshd_lb_desired", "Services that should be in the kernel.", float64(c.Desired), "sandbox", box)
	e.gauge("meshd_lb_pending", "Services with failed operations, which are tried again.", float64(c.Pending), "sandbox",
		box)
	e.gauge("meshd_lb_conflicts", "Addresses that a service does not get because another one has them.",
		float64(c.Conflicts), "sandbox", box)
	e.gauge("meshd_lb_waiting_services", "Services that are not balanced since there are too many backends in all.",
		float64(c.Waiting), "sandbox", box)
	e.gauge("meshd_lb_refused_networks",
		"Networks that are not served since a pool of theirs touches the host, or an older network's.", float64(c.Refused),
		"sandbox", box)
	e.gauge("meshd_lb_draining", "Backends whose connections may still finish.", float64(c.Draining), "sandbox", box)
	for o := lb.DrainIdle; o <= lb.DrainGone; o++ {
		e.counter("meshd_lb_drains_total", "Drains that ended, by how.", c.Drains[o], "sandbox", box, "outcome", o.String())
	}
}

func (e emitter) lbOperations(box string, c *lb.Counters) {
	for kind := lb.SetPool; kind <= lb.DelPool; kind++ {
		const help = "Operations on the kernel, by kind and result."
		e.counter("meshd_lb_operations_total", help, c.Ops[kind], "sandbox", box, "kind", kind.String(), "result", "ok")
		e.counter("meshd_lb_operations_total", help, c.Failed[kind], "sandbox", box, "kind", kind.String(), "result",
			"failed")
	}
	e.counter("meshd_lb_failures_total", "Operations that failed.", c.Failures, "sandbox", box)
	e.counter("meshd_lb_retries_total", "Rounds of trying failed operations again.", c.Retries, "sandbox", box)
	e.histogram("meshd_lb_apply_seconds", "Duration of calls to the driver.", c.ApplyTime, c.ApplyBuckets[:], "sandbox",
		box)
}

func (e emitter) lbVerify(box string, c *lb.Counters, latest *lb.Report) {
	for r := lb.VerifyOK; r <= lb.VerifyError; r++ {
		e.counter("meshd_lb_verifies_total", "Comparisons with the kernel, by result.", c.Verifies[r], "sandbox", box,
			"result", r.String())
	}
	e.counter("meshd_lb_verifies_prompted_total", "Comparisons because somebody else had written to the kernel's rules.",
		c.Triggered, "sandbox", box)
	e.counter("meshd_lb_audits_total", "Comparisons that read the services back.", c.Audits, "sandbox", box)
	e.counter("meshd_lb_repairs_total", "Times that somebody else's change was found and undone.", c.Repairs, "sandbox",
		box)
	e.send(prometheus.CounterValue, "meshd_lb_verify_seconds_total", "Time spent in comparisons.", c.VerifyTime.Seconds(),
		"sandbox", box)
	for _, area := range lb.Areas() {
		for _, kind := range []lb.FindingKind{lb.FindingMissing, lb.FindingExtra, lb.FindingChanged} {
			if v := c.Drift[lb.Drift{Area: area, Kind: kind}]; v > 0 {
				e.counter("meshd_lb_drift_total", "Differences that somebody else made, by what and how.", v, "sandbox", box,
					"area", string(area), "kind", string(kind))
			}
		}
	}
	if latest == nil {
		return
	}
	e.gauge("meshd_lb_verify_last_timestamp_seconds", "When the latest comparison began, Unix time.",
		float64(latest.At.UnixMilli())/1000, "sandbox", box)
	e.gauge("meshd_lb_verify_last_seconds", "How long the latest comparison took.", latest.Took.Seconds(), "sandbox", box)
	e.gauge("meshd_lb_verify_last_ok", "1 if the latest comparison found the kernel as it should be.",
		b2f(latest.Result() == lb.VerifyOK), "sandbox", box)
	e.gauge("meshd_lb_verify_last_differences", "Differences that the latest comparison found.",
		float64(len(latest.Findings)+latest.More), "sandbox", box)
}

// histogram sends what was counted by lb.ApplyBounds.
func (e emitter) histogram(name, help string, sum time.Duration, buckets []uint64, labels ...string) {
	var keys, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		keys, values = append(keys, labels[i]), append(values, labels[i+1])
	}
	cumulated, count := map[float64]uint64{}, uint64(0)
	for i, bound := range lb.ApplyBounds() {
		count += buckets[i]
		cumulated[bound] = count
	}
	count += buckets[len(buckets)-1]
	e.ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc(name, help, keys, nil), count, sum.Seconds(), cumulated,
		values...)
}
