package balancing

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"meshd/lb"
	"meshd/lb/hostfacts"
	"meshd/lb/hostwatch"
	"meshd/mesh/control"
)

// watchHost opens a watcher of a network namespace, or of the host's for "".
// Where it cannot be asked, no pool is served there, and status says why.
func (h *Host) watchHost(netns string, log *slog.Logger) *hostwatch.Watcher {
	w := hostwatch.New(func() (hostwatch.Kernel, error) { return hostwatch.Open(netns, h.cfg.PoolRanges) }, log)
	w.Require(h.cfg.PoolRanges, nil)
	return w
}

// WhyNoVIPs says what keeps the host's balancer from serving a network, or "".
func (h *Host) WhyNoVIPs(network string) string {
	return lb.FormatConflicts(h.balancer.Refused()[network])
}

// refusals says, per network, what keeps a balancer from serving it. where goes
// before each text.
func refusals(b *lb.Balancer, where string) []string {
	var all []string
	refused := b.Refused()
	for _, network := range slices.Sorted(maps.Keys(refused)) {
		all = append(all, fmt.Sprintf("%snetwork %s is not served: %s; vip services are answered with their tasks", where,
			network, lb.FormatConflicts(refused[network])))
	}
	return all
}

// isRefused reports whether a conflict that is known, and does not end by waiting, keeps
// a balancer from serving a network.
func isRefused(b *lb.Balancer, network string) bool {
	against := b.Refused()[network]
	return len(against) > 0 && !slices.ContainsFunc(against,
		func(c hostfacts.Conflict) bool { return c.Kind == hostfacts.KindUnknown })
}

// refusedEvent returns the event that a network is not served here, or is again.
func refusedEvent(sandbox, network string, against []hostfacts.Conflict) control.Event {
	e := control.Event{Type: control.EventPoolRefused, Network: network, Detail: lb.FormatConflicts(against)}
	if len(against) == 0 {
		e.Type, e.Detail = control.EventPoolServed, "nothing stands against its pools any more"
	}
	if sandbox != "" {
		e.Detail = "sandbox " + sandbox + ": " + e.Detail
	}
	return e
}

// AgainstPools says which conflicts with pools there are on this host, or "" (L9).
func (h *Host) AgainstPools(pools []netip.Prefix) string {
	facts, _ := h.facts.Facts()
	var all []hostfacts.Conflict
	for _, p := range pools {
		if p.IsValid() && p == p.Masked() {
			all = append(all, hostfacts.Conflicts(p, facts)...)
		}
	}
	return lb.FormatConflicts(all)
}
