package lb

import (
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// defaultDrain is how long connections of a removed backend may go on where
// neither the service nor the daemon says.
const defaultDrain = 30 * time.Second

// maxWeight is the largest weight that every driver can express.
const maxWeight = 65535

// planAddr returns what the kernel should hold for one address of a service:
// one entry per declared port, or one for all ports of each protocol (L3): TCP
// drains, UDP does not. A service without backends is there, and refuses (L5).
func (p *Planner) planAddr(s *state.Service, id ServiceID, vip netip.Addr) []*Service {
	drain := p.node.Drain
	if s.Drain > 0 {
		drain = s.Drain
	}
	base := Service{
		Network: id.Network, Name: id.Service, Drain: drain,
		Scheduler: schedulerOr(s.Scheduler), Affinity: s.Affinity,
	}
	ports := plannedPorts(s)
	all := make([]*Service, 0, len(ports))
	for _, port := range ports {
		one := base
		one.Key = Key{VIP: vip, Port: port.Number, Proto: port.Proto}
		one.Backends = p.planBackends(s, vip, port.Number, port.Proto == state.UDP)
		all = append(all, &one)
	}
	return all
}

// allPorts are what a service without declared ports serves.
var allPorts = []state.Port{{Proto: state.TCP}, {Proto: state.UDP}}

// schedulers are those of L6. The kernel loads a module by the name that it is
// given, so that no other name may reach it.
var schedulers = []string{"rr", "wrr", "lc", "wlc", "sh", "dh", "mh", "sed", "nq"}

// schedulerOr returns the scheduler's name. The default is wrr: with equal
// weights it is round robin, and IPVS' rr does not look at weights. A name that
// is not known, as of a newer version, is answered with the default too.
func schedulerOr(name string) string {
	if !slices.Contains(schedulers, name) {
		return "wrr"
	}
	return name
}

// planBackends returns the backends of the VIP's family: the balanced members
// with their weights and, but for UDP, the draining ones with weight 0. Members that share
// an address (tasks in the host's namespace) share one backend.
func (p *Planner) planBackends(s *state.Service, vip netip.Addr, port uint16, udp bool) []Backend {
	balanced, draining := s.Balanced(), s.DrainingMembers()
	backends := make([]Backend, 0, len(balanced)+len(draining))
	for _, e := range balanced {
		if a := p.backendAddr(e, vip); a.IsValid() {
			backends = append(backends, Backend{Addr: netip.AddrPortFrom(a, port), Weight: uint32(e.Weight())})
		}
	}
	if udp {
		draining = nil // weight 0 would keep feeding them (L5)
	}
	for _, e := range draining {
		if a := p.backendAddr(e, vip); a.IsValid() {
			backends = append(backends, Backend{Addr: netip.AddrPortFrom(a, port)})
		}
	}
	return mergeBackends(backends)
}

// addrFor returns the member's address of the VIP's family, or the zero Addr.
func addrFor(e *state.Entry, vip netip.Addr) netip.Addr {
	if vip.Is4() {
		return e.Addr4()
	}
	return e.Addr6()
}

// mergeBackends sorts the list in place and adds up the weights of repeats.
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
