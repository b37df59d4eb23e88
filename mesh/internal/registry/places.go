package registry

import (
	"net/netip"
	"slices"

	"github.com/cespare/xxhash/v2"

	"meshd/mesh/control"
	"meshd/state"
)

// count counts a task in or out of its service and its addresses; by is 1 or -1.
func (n *localNetwork) count(id string, t savedTask, by int) {
	add(n.counts, t.Service, by)
	e, err := t.endpoint(id)
	if err != nil {
		return
	}
	for _, a := range []netip.Addr{e.IP4, e.IP6} {
		if a.IsValid() {
			add(n.places, placeOf(t.Service, a), by)
		}
	}
}

func add[K comparable](counts map[K]int, k K, by int) {
	if counts[k] += by; counts[k] <= 0 {
		delete(counts, k)
	}
}

// placeOf hashes a service and an address. Others seldom have the same hash.
func placeOf(service string, a netip.Addr) uint64 {
	b := a.As16()
	return xxhash.Sum64(append(b[:], service...))
}

// admitID refuses an id that a task of this node already has.
func (n *localNetwork) admitID(network, id string) error {
	if _, mine := n.tasks[id]; mine {
		return control.Refuse(control.CodeConflict, "choose another --id, or remove that task first: meshctl task rm "+id,
			"id: %q is already a task of this node in network %q", id, network)
	}
	return nil
}

// admitPlace refuses a second task of a service at one address and port (N5). Only
// one program can listen there: with two tasks it would get twice its share, and it
// would go on getting connections when one of them is removed. Tasks that drain are
// about to go, and the tasks in replaces, by id, may be replaced: neither counts.
func (n *localNetwork) admitPlace(e *state.Endpoint, replaces map[string]bool) error {
	at := func(a netip.Addr) bool { return a.IsValid() && n.places[placeOf(e.Service, a)] > 0 }
	if !at(e.IP4) && !at(e.IP6) {
		return nil
	}
	first, where := "", netip.Addr{}
	for id, t := range n.tasks {
		if t.Service != e.Service || replaces[id] || first != "" && id > first {
			continue
		}
		o, err := t.endpoint(id)
		if err != nil || o.Draining || !samePorts(o.Ports, e.Ports) {
			continue
		}
		switch {
		case e.IP4.IsValid() && e.IP4 == o.IP4:
			first, where = id, e.IP4
		case e.IP6.IsValid() && e.IP6 == o.IP6:
			first, where = id, e.IP6
		}
	}
	if first == "" {
		return nil
	}
	return control.Refuse(control.CodeConflict,
		"remove that one first: meshctl task rm "+first+"; or give this one ports of its own",
		"ips: %s, with the same ports, is already task %q of service %q on this node", where, first, e.Service)
}

// samePorts reports whether two tasks would get the connections of one port. A task
// without ports gets those of all.
func samePorts(a, b []state.Port) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(p state.Port) bool {
		return slices.ContainsFunc(b, func(q state.Port) bool { return p.Number == q.Number && p.Proto == q.Proto })
	})
}
