package lb

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// defaultDrain is how long connections of a removed backend may go on if neither
// the service nor the daemon has a setting.
const defaultDrain = 30 * time.Second

// maxWeight is the largest weight that every driver can express.
const maxWeight = 65535

// planAddr returns what the kernel should hold for one address of a service: one
// entry per declared port, or one for all ports of each protocol (L3), since TCP
// drains and UDP does not. A service without backends has entries too: they refuse
// connections (L5).
func (p *planner) planAddr(s *state.Service, id ServiceID, vip netip.Addr) []*Service {
	drain := p.node.Drain
	if s.Drain > 0 {
		drain = s.Drain
	}
	base := Service{
		Network: id.Network, Name: id.Service, Drain: drain,
		Scheduler: schedulerOr(s.Scheduler), Affinity: s.Affinity,
	}
	ports := plannedPorts(s)
	lists := p.placeMembers(s, vip, ports)
	all := make([]*Service, len(ports))
	for i, port := range ports {
		one := base
		one.Key = Key{VIP: vip, Port: port.Number, Proto: port.Proto}
		one.Backends = lists[i]
		all[i] = &one
	}
	return all
}

// allPorts are what a service without declared ports serves.
var allPorts = []state.Port{{Proto: state.TCP}, {Proto: state.UDP}}

// schedulerOr returns the scheduler's name, or the default for a name that is not
// known, as a newer version may use: the kernel loads a module by the name that it is
// given, so no other name may reach it (L6). The default is wrr: with equal weights it is
// round robin, while IPVS' rr ignores weights.
func schedulerOr(name string) string {
	if !state.IsScheduler(name) {
		return state.DefaultScheduler
	}
	return name
}

// placeMembers returns the backends of each port, of the VIP's family: the members
// that declare the port, and those that declare none (L12). Serving members get new
// connections; at a port that none of them has, suspected ones do. Draining members
// have weight 0, and are left out for UDP, whose clients would go on sending to
// them (L5). Each is a backend at its own target (L16); members that listen at one
// address and port share one.
func (p *planner) placeMembers(s *state.Service, vip netip.Addr, ports []state.Port) [][]Backend {
	pl := placement{planner: p, vip: vip, ports: ports, lists: make([][]Backend, len(ports))}
	members, preferred := s.Serving()
	if len(ports) <= len(allPorts) {
		for i := range pl.lists { // most members have all ports
			pl.lists[i] = make([]Backend, 0, members.Len())
		}
	}
	for _, e := range members.Part(0, preferred).All() {
		pl.place(e, uint32(e.Weight()), func(int) bool { return true })
	}
	if preferred < members.Len() {
		unserved := make([]bool, len(ports))
		for i, list := range pl.lists {
			unserved[i] = len(list) == 0
		}
		for _, e := range members.Part(preferred, members.Len()).All() {
			pl.place(e, uint32(e.Weight()), func(port int) bool { return unserved[port] })
		}
	}
	for _, e := range s.DrainingMembers().All() {
		pl.place(e, 0, func(port int) bool { return ports[port].Proto != state.UDP })
	}
	for i, list := range pl.lists {
		pl.lists[i] = mergeBackends(list)
	}
	return pl.lists
}

// placement collects the backends for one address of a service.
type placement struct {
	planner *planner
	vip     netip.Addr
	ports   []state.Port // by protocol and number, each once
	lists   [][]Backend  // of each port
}

// place adds a member to the ports that it serves and for which wants is true.
func (pl *placement) place(e *state.Entry, weight uint32, wants func(port int) bool) {
	a := pl.planner.backendAddr(e, pl.vip)
	if !a.IsValid() {
		return
	}
	add := func(i int, listens uint16) {
		if wants(i) {
			pl.lists[i] = append(pl.lists[i], Backend{Addr: netip.AddrPortFrom(a, listens), Weight: weight})
		}
	}
	if !e.HasPorts() {
		for i := range pl.ports {
			add(i, pl.ports[i].Number)
		}
		return
	}
	last := -1 // a port may have two names
	e.EachPort(func(port state.Port) {
		if i, planned := slices.BinarySearchFunc(pl.ports, port, comparePorts); planned && i != last {
			add(i, port.Listens())
			last = i
		}
	})
}

// Listens reports whether a task gets the connections of a service at a port of its own;
// for all ports that is 0 (L12, L16).
func Listens(e *state.Entry, k Key, at uint16) bool {
	if !e.HasPorts() || k.AllPorts() {
		return !e.HasPorts() && at == k.Port
	}
	found := false
	e.EachPort(func(p state.Port) {
		found = found || p.Number == k.Port && p.Proto == k.Proto && p.Listens() == at
	})
	return found
}

// comparePorts orders ports by protocol and number.
func comparePorts(a, b state.Port) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Number, b.Number))
}

// addrFor returns the member's address of the VIP's family, or the zero Addr.
func addrFor(e *state.Entry, vip netip.Addr) netip.Addr {
	if vip.Is4() {
		return e.Addr4()
	}
	return e.Addr6()
}

// mergeBackends sorts the list in place, and joins backends with one address and port
// into one that has the sum of their weights.
func mergeBackends(list []Backend) []Backend {
	slices.SortFunc(list, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
	out := list[:0]
	for _, b := range list {
		if n := len(out); n > 0 && out[n-1].Addr == b.Addr {
			out[n-1].Weight = min(out[n-1].Weight+b.Weight, maxWeight)
			continue
		}
		out = append(out, b)
	}
	return out
}
