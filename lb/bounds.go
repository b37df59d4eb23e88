package lb

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"meshd/state"
)

// Bounds of a plan. Records are small, but what follows from them may be large: a
// thousand tasks that declare a thousand ports are a million entries in every
// kernel of the mesh (L11).
const (
	// maxServiceBackends bounds the ports of a service times its backends. Beyond
	// it, fewer ports are planned.
	maxServiceBackends = 1 << 16
	// maxBackends bounds the backends of all ports of all services. The last quarter
	// is kept for services with at most smallService of them. A service for which
	// there is no room is not planned until there is.
	maxBackends  = 1 << 19
	smallService = 1 << 10
)

// plannedPorts returns the ports at which a service is planned, by protocol and
// number, each once. These are the ports that its tasks declare; if there are too
// many, those that the most nodes declare. If a task declares none, all ports of
// each protocol are added (L12).
func plannedPorts(s *state.Service) []state.Port {
	if len(s.Ports) == 0 {
		return allPorts
	}
	ports := declaredPorts(s)
	if s.Members.Contain(func(e *state.Entry) bool { return !e.HasPorts() }) {
		ports = slices.Concat(allPorts, ports)
		slices.SortFunc(ports, comparePorts)
	}
	return ports
}

// declaredPorts returns the ports that tasks declare, as far as there is room.
func declaredPorts(s *state.Service) []state.Port {
	samePort := func(a, b state.Port) bool { return comparePorts(a, b) == 0 }
	ports := s.Ports
	for i := 1; i < len(ports); i++ {
		if samePort(ports[i-1], ports[i]) { // with two names
			ports = slices.CompactFunc(slices.Clone(ports), samePort)
			break
		}
	}
	members := s.Members.Len() - int(s.Count[state.Unready])
	if !s.Panicking() {
		members -= int(s.Count[state.Failing])
	}
	if (len(ports)+len(allPorts))*members <= maxServiceBackends {
		return ports
	}
	return mostDeclared(s, ports)
}

// mostDeclared returns as many of the ports as have room, at least one, and prefers
// those that the most nodes declare. Nodes are counted, not tasks, so that one node
// cannot outvote the others by the number of its tasks.
func mostDeclared(s *state.Service, ports []state.Port) []state.Port {
	bare := func(p state.Port) state.Port { return state.Port{Number: p.Number, Proto: p.Proto} }
	type count struct{ votes, tasks, last int } // last is the task that was counted last
	counts := map[state.Port]count{}
	asked := map[state.NodeID]struct{}{}
	everywhere := 0 // tasks without ports
	for i, e := range s.Members.All() {
		vote := 0
		if _, again := asked[e.Owner()]; !again {
			asked[e.Owner()] = struct{}{}
			vote = 1
		}
		if !e.HasPorts() {
			everywhere++
		}
		e.EachPort(func(p state.Port) {
			if c := counts[bare(p)]; c.last <= i { // once, under however many names
				counts[bare(p)] = count{c.votes + vote, c.tasks + 1, i + 1}
			}
		})
	}
	ports = slices.Clone(ports)
	slices.SortStableFunc(ports, func(a, b state.Port) int {
		return cmp.Compare(counts[bare(b)].votes,
			counts[bare(a)].votes)
	})
	most, room := 0, maxServiceBackends-len(allPorts)*everywhere
	for most < len(ports) && (most == 0 || counts[bare(ports[most])].tasks+everywhere <= room) {
		room -= counts[bare(ports[most])].tasks + everywhere
		most++
	}
	ports = ports[:most]
	slices.SortFunc(ports, comparePorts)
	return ports
}

// withoutPlanned removes from the list what is planned already, and all but the
// first of one key.
func (p *planner) withoutPlanned(all []*Service) []*Service {
	seen := make(map[Key]struct{}, len(all))
	return slices.DeleteFunc(all, func(s *Service) bool {
		_, twice := seen[s.Key]
		seen[s.Key] = struct{}{}
		return twice || p.desired.Services[s.Key] != nil
	})
}

// reserveBackends takes room for the backends of a service, and reports whether
// there is enough; if not, the service waits.
func (p *planner) reserveBackends(id ServiceID, planned []*Service) bool {
	n := 0
	for _, s := range planned {
		n += len(s.Backends)
	}
	most := maxBackends
	if n > smallService {
		most -= maxBackends / 4
	}
	if p.backends+n > most {
		p.waiting[id] = struct{}{}
		return false
	}
	p.backends += n
	return true
}

// retryWaiting plans the services that wait, once half of the room is free. A
// service that comes and goes at the bound must not have all that wait planned each
// time.
func (p *planner) retryWaiting() {
	if len(p.waiting) == 0 || p.waitingTried && p.backends > maxBackends/2 {
		return
	}
	p.waitingTried = false
	for _, id := range slices.SortedFunc(maps.Keys(p.waiting), func(a, b ServiceID) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Service, b.Service))
	}) {
		p.removePlanned(id)
		p.planService(id)
	}
	p.waitingTried = len(p.waiting) > 0
}

// longestRest bounds the rest after a change, which is as long as the change
// took: what never stops changing takes half of a processor at most.
const longestRest = 2 * time.Second
