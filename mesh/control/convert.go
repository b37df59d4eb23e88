package control

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"meshd/state"
)

// FromService describes a service of the table. Degraded is the caller's to
// fill: whether a VIP is served is not the table's to know.
func FromService(s *state.Service) Service {
	out := Service{
		Name: s.Name, Network: s.Network, Mode: s.Mode.String(), Scheduler: cmp.Or(s.Scheduler, "wrr"),
		VIPs: addrs(s.VIP4, s.VIP6), OtherVIPs: slices.Clone(s.OtherVIPs), Ports: portStrings(s.Ports),
		Affinity: s.Affinity.Milliseconds(), Drain: s.Drain.Milliseconds(), TTL: int64(s.TTL / time.Second),
		Aliases: slices.Clone(s.Aliases), Conflict: s.Conflict,
	}
	out.Tasks = TaskCount{
		Serving: s.Count[state.Serving], Suspect: s.Count[state.Suspect],
		Draining: s.Count[state.Draining], Unready: s.Count[state.Unready],
	}
	return out
}

// FromMembers describes the members of a service.
func FromMembers(s *state.Service) []Task {
	tasks := make([]Task, 0, len(s.Members))
	for i, m := range s.Members {
		tasks = append(tasks, FromEndpoint(s.Network, m.Endpoint(), s.Class(i)))
	}
	return tasks
}

// FromEndpoint describes an endpoint of a network, served as class says.
func FromEndpoint(network string, e state.Endpoint, class state.Class) Task {
	return Task{
		ID: e.ID, Network: network, Service: e.Service, Slot: e.Slot, TaskName: e.TaskName(), Name: e.Name,
		Hostname: e.Hostname, Aliases: slices.Clone(e.Aliases), IPs: addrs(e.IP4, e.IP6), Ports: portStrings(e.Ports),
		Weight: max(e.Weight, 1), Health: e.Health.String(), State: class.String(), Node: string(e.Owner),
	}
}

// SortTasks sorts tasks as Backend.Tasks returns them.
func SortTasks(tasks []Task) {
	slices.SortFunc(tasks, func(a, b Task) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.ID, b.ID))
	})
}

// Compare fills Equal and Differ of d and of its networks from their Nodes and
// from Silent. The checksum that most nodes have is taken for right; of two
// that as many have, the one of the first node in name order.
func (d *Diff) Compare() {
	d.Equal = len(d.Silent) == 0
	for i := range d.Networks {
		n := &d.Networks[i]
		n.compare()
		d.Equal = d.Equal && n.Equal
	}
}

func (n *NetworkDiff) compare() {
	slices.SortFunc(n.Nodes, func(a, b NodeChecksum) int { return cmp.Compare(a.Node, b.Node) })
	votes := map[string]int{}
	for _, c := range n.Nodes {
		votes[c.Checksum]++
	}
	right := ""
	for _, c := range n.Nodes {
		if right == "" || votes[c.Checksum] > votes[right] {
			right = c.Checksum
		}
	}
	n.Differ = nil
	for _, c := range n.Nodes {
		if c.Checksum != right {
			n.Differ = append(n.Differ, c.Node)
		}
	}
	n.Equal = len(n.Differ) == 0
}

func addrs(all ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsValid() })
}

func portStrings(ports []state.Port) []string {
	out := make([]string, 0, len(ports))
	for _, p := range ports {
		out = append(out, p.String())
	}
	return out
}
