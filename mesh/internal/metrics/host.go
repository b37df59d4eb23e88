package metrics

import (
	"meshd/lb/hostcheck"
	"meshd/lb/hostwatch"
	"meshd/lb/rulewatch"
	"meshd/mesh/internal/lookout"
)

// Lookout sends what was found of the host, and the looks at it.
func (e Emitter) Lookout(found []hostcheck.Finding, c lookout.Counts) {
	count := map[hostcheck.Code]int{}
	for _, f := range found {
		count[f.Code]++
	}
	for _, code := range hostcheck.Codes() {
		e.Gauge("meshd_host_findings", "What of the host is against meshd, by kind; meshctl doctor says more.",
			float64(count[code]), "code", string(code))
	}
	e.Counter("meshd_host_looks_total", "Looks at the host for what is against meshd.", c.Looks)
	e.Counter("meshd_host_looks_inside_total", "Looks into sandboxes for the same.", c.Inside)
	e.Seconds("meshd_host_looks_seconds_total", "Time that they took.", c.Spent)
	e.Counter("meshd_host_mended_total",
		"How often ports of bridges were put into hairpin mode, devices made to forward, and rules added to chains of "+
			"firewalls or taken back from there.", c.Fixes)
}

// Namespace sends how the addresses and routes of a namespace are followed.
func (e Emitter) Namespace(sandbox string, c hostwatch.Counters) {
	e.Counter("meshd_host_reads_total", "Readings of addresses, routes and routing rules.", c.Reads, "sandbox", sandbox)
	e.Counter("meshd_host_read_failures_total", "Readings that failed, and openings of the kernel's sockets.", c.Errors,
		"sandbox", sandbox)
	e.Counter("meshd_host_events_missed_total", "Times that the kernel could not tell what changed; everything was read.",
		c.Missed, "sandbox", sandbox)
	e.Counter("meshd_host_changes_total", "Times that what counts for pools was another than before.", c.Changes,
		"sandbox", sandbox)
}

// Rules sends how changes of a namespace's nftables rules are heard. The watcher's error
// says why the kernel does not tell of them; nil: it does.
func (e Emitter) Rules(sandbox string, c rulewatch.Counters, err error) {
	e.Flag("meshd_rules_heard", "1 if the kernel tells of changes of the nftables rules; 0: it is asked each second.",
		err == nil, "sandbox", sandbox)
	e.Counter("meshd_rules_events_total", "Transactions of others that the kernel told of.", c.Heard, "sandbox", sandbox)
	e.Counter("meshd_rules_events_missed_total", "Times that there were more than could wait; everything was compared.",
		c.Missed, "sandbox", sandbox)
	e.Counter("meshd_rules_losses_total",
		"Subscriptions to changes of the nftables rules that could not be had, or ended.", c.Losses, "sandbox", sandbox)
}
