package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"meshd/mesh/control"
	"meshd/state"
)

// maxOlder is how many nodes of earlier versions a warning names.
const maxOlder = 3

// targetWarnings says who does not find a new task that has ports with targets: clients
// of a name that is answered with tasks, unless they ask for SRV, and nodes of versions
// that do not know targets. The service may be nil.
func (api *TaskAPI) targetWarnings(ctx context.Context, p *control.ParsedTask, s *state.Service) (out []string) {
	if !slices.ContainsFunc(p.Endpoint.Ports, func(p state.Port) bool { return p.Target != 0 }) {
		return nil
	}
	if s != nil && s.Mode == state.ModeDNSRR {
		out = append(out, fmt.Sprintf("the name of service %s is answered with the addresses of its tasks: only SRV tells "+
			"clients the ports at which they listen", s.Name))
	}
	var older []string
	err := api.r.do(ctx, func(c Core) {
		for _, o := range c.Store().Participants(p.Network) {
			if info, known := c.Store().Node(o); known && !info.Targets && c.Store().Liveness(o) == state.Alive {
				older = append(older, string(o))
			}
		}
	})
	if err != nil || len(older) == 0 {
		return out
	}
	slices.Sort(older)
	names := strings.Join(older[:min(len(older), maxOlder)], ", ")
	if left := len(older) - maxOlder; left > 0 {
		names += fmt.Sprintf(" and %d more", left)
	}
	return append(out, "nodes of an earlier version do not know ports with targets, and leave them out until they are "+
		"upgraded: "+names)
}
