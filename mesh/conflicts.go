package mesh

import (
	"fmt"
	"maps"
	"slices"

	"meshd/gossip"
	"meshd/mesh/registry"
	"meshd/state"
)

// maxShown is how many conflicts of one network a status names one by one.
const maxShown = 10

// conflictsIn sums up what stands against services of a network: those for
// which the pool has no address in one line, the others by name, up to a bound.
func conflictsIn(network string, services []*state.Service) []string {
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
		out = append(out, fmt.Sprintf("network %s: %d more services have conflicts; meshctl service ls --network %s shows them", network, left, network))
	}
	return out
}

// conflicts says which networks are defined twice or overlap, those that this
// node takes part in first, and how many more there are.
func conflicts(c *gossip.Core) []string {
	joined, _ := c.Store().Networks()
	return registry.Troubles(c.Store().Definitions(), joined)
}

// undefined says which of the networks that were asked for nobody has made.
func undefined(networks []string, defs map[string]state.NetworkDef) (out []string) {
	for _, name := range networks {
		if _, ok := defs[name]; !ok {
			out = append(out, fmt.Sprintf("networks: nobody has made a network %s; if that is no typing error, meshctl "+
				"network create %s", name, name))
		}
	}
	return out
}
