package observe

import (
	"fmt"
	"maps"
	"slices"

	"meshd/state"
)

// maxShown is how many conflicts of one network a status names one by one.
const maxShown = 10

// ServiceConflicts sums up what stands against services of a network: services with one
// reason in one line, the first of them by name, and at most maxShown lines.
func ServiceConflicts(network string, services []*state.Service) []string {
	byReason := map[string][]string{} // reason → services
	for _, s := range services {
		if s.Conflict != "" {
			byReason[s.Conflict] = append(byReason[s.Conflict], s.Name)
		}
	}
	var out []string
	left := 0
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		names := byReason[reason]
		switch {
		case len(out) >= maxShown:
			left += len(names)
		case len(names) == 1:
			out = append(out, fmt.Sprintf("network %s service %s: %s", network, names[0], reason))
		default:
			out = append(out, fmt.Sprintf("network %s: %d services: %s; first: %s", network, len(names), reason,
				slices.Min(names)))
		}
	}
	if left > 0 {
		out = append(out, fmt.Sprintf("network %s: %d more services have conflicts; meshctl service ls --network %s shows "+
			"them", network, left, network))
	}
	return out
}

// UndefinedNetworks says which of the configured networks no node has made.
func UndefinedNetworks(networks []string, defs map[string]state.NetworkDef) (out []string) {
	for _, name := range networks {
		if _, ok := defs[name]; !ok {
			out = append(out, fmt.Sprintf("networks: nobody has made a network %s; if that is no typing error, meshctl "+
				"network create %s", name, name))
		}
	}
	return out
}
