package metrics

import (
	"cmp"

	"meshd/lb"
)

// Balancer sends what a load balancer did. sandbox is empty for the host's. There is
// nothing per service or backend, so that the number of series does not grow with the
// mesh. latest is its latest comparison with the kernel; nil: there was none.
func (e Emitter) Balancer(sandbox string, c *lb.Counters, latest *lb.Report) {
	e.balancerState(sandbox, c)
	e.operations(sandbox, c)
	e.verifications(sandbox, c, latest)
}

func (e Emitter) balancerState(sandbox string, c *lb.Counters) {
	e.Gauge("meshd_lb_info", "1; the label says which driver balances.", 1,
		"sandbox", sandbox, "driver", cmp.Or(c.Driver, "none"))
	e.Flag("meshd_lb_ready", "1 if a driver works and is set up.", c.Ready, "sandbox", sandbox)
	e.Flag("meshd_lb_unsupported", "1 if no driver works here: vip services are answered with their tasks.",
		c.Unsupported, "sandbox", sandbox)
	e.Gauge("meshd_lb_services", "Services in the kernel.", float64(c.Services), "sandbox", sandbox)
	e.Gauge("meshd_lb_desired", "Services that should be in the kernel.", float64(c.Desired), "sandbox", sandbox)
	e.Gauge("meshd_lb_pending", "Services with failed operations, which are tried again.", float64(c.Pending), "sandbox",
		sandbox)
	e.Gauge("meshd_lb_conflicts", "Addresses that a service does not get because another one has them.",
		float64(c.Conflicts), "sandbox", sandbox)
	e.Gauge("meshd_lb_waiting_services", "Services that are not balanced since there are too many backends in all.",
		float64(c.Waiting), "sandbox", sandbox)
	e.Gauge("meshd_lb_refused_networks",
		"Networks that are not served since a pool of theirs touches the host, or an older network's.", float64(c.Refused),
		"sandbox", sandbox)
	e.Gauge("meshd_lb_draining", "Backends whose connections may still finish.", float64(c.Draining), "sandbox", sandbox)
	for o := lb.DrainIdle; o <= lb.DrainGone; o++ {
		e.Counter("meshd_lb_drains_total", "Drains that ended, by how.", c.Drains[o],
			"sandbox", sandbox, "outcome", o.String())
	}
}

func (e Emitter) operations(sandbox string, c *lb.Counters) {
	for kind := lb.SetPool; kind <= lb.DelPool; kind++ {
		const help = "Operations on the kernel, by kind and result."
		e.Counter("meshd_lb_operations_total", help, c.Ops[kind], "sandbox", sandbox, "kind", kind.String(), "result", "ok")
		e.Counter("meshd_lb_operations_total", help, c.Failed[kind], "sandbox", sandbox, "kind", kind.String(), "result",
			"failed")
	}
	e.Counter("meshd_lb_failures_total", "Operations that failed.", c.Failures, "sandbox", sandbox)
	e.Counter("meshd_lb_retries_total", "Rounds of trying failed operations again.", c.Retries, "sandbox", sandbox)
	e.Histogram("meshd_lb_apply_seconds", "Duration of calls to the driver.", c.ApplyTime, lb.ApplyBounds(),
		c.ApplyBuckets[:], "sandbox",
		sandbox)
}

func (e Emitter) verifications(sandbox string, c *lb.Counters, latest *lb.Report) {
	for r := lb.VerifyOK; r <= lb.VerifyError; r++ {
		e.Counter("meshd_lb_verifies_total", "Comparisons with the kernel, by result.", c.Verifies[r], "sandbox", sandbox,
			"result", r.String())
	}
	e.Counter("meshd_lb_verifies_prompted_total", "Comparisons because somebody else had written to the kernel's rules.",
		c.Triggered, "sandbox", sandbox)
	e.Counter("meshd_lb_audits_total", "Comparisons that read the services back.", c.Audits, "sandbox", sandbox)
	e.Counter("meshd_lb_repairs_total", "Times that somebody else's change was found and undone.", c.Repairs, "sandbox",
		sandbox)
	e.Seconds("meshd_lb_verify_seconds_total", "Time spent in comparisons.", c.VerifyTime,
		"sandbox", sandbox)
	for _, area := range lb.Areas() {
		for _, kind := range []lb.FindingKind{lb.FindingMissing, lb.FindingExtra, lb.FindingChanged} {
			if v := c.Drift[lb.Drift{Area: area, Kind: kind}]; v > 0 {
				e.Counter("meshd_lb_drift_total", "Differences that somebody else made, by what and how.", v, "sandbox", sandbox,
					"area", string(area), "kind", string(kind))
			}
		}
	}
	if latest == nil {
		return
	}
	e.Gauge("meshd_lb_verify_last_timestamp_seconds", "When the latest comparison began, Unix time.",
		float64(latest.At.UnixMilli())/1000, "sandbox", sandbox)
	e.Gauge("meshd_lb_verify_last_seconds", "How long the latest comparison took.", latest.Took.Seconds(),
		"sandbox", sandbox)
	e.Flag("meshd_lb_verify_last_ok", "1 if the latest comparison found the kernel as it should be.",
		latest.Result() == lb.VerifyOK, "sandbox", sandbox)
	e.Gauge("meshd_lb_verify_last_differences", "Differences that the latest comparison found.",
		float64(len(latest.Findings)+latest.More), "sandbox", sandbox)
}
