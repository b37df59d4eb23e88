package registry

import (
	"net/netip"
	"slices"

	"meshd/mesh/control"
	"meshd/mesh/source"
	"meshd/state"
)

// count counts a task in or out of its service and its addresses; by is 1 or -1.
func (n *localNetwork) count(id string, t *savedTask, by int) {
	if tasks := n.counts.at(t.Service) + by; tasks > 0 {
		n.counts.set(t.Service, tasks)
	} else {
		n.counts.remove(t.Service)
	}
	if key := unitKey(t.unit()) + id; by > 0 {
		n.units.set(key, struct{}{})
	} else {
		n.units.remove(key)
	}
	e, err := t.endpoint(id)
	if err != nil {
		return
	}
	for _, a := range []netip.Addr{e.IP4, e.IP6} {
		if !a.IsValid() {
			continue
		}
		if key := placeKey(t.Service, a) + id; by > 0 {
			n.places.set(key, struct{}{})
		} else {
			n.places.remove(key)
		}
	}
}

// placeKey is what the keys of the tasks of a service at an address begin with; the id
// follows.
func placeKey(service string, a netip.Addr) string {
	b := a.As16()
	return service + "\x00" + string(b[:])
}

// admitID refuses an id that a task of this node already has.
func (n *localNetwork) admitID(network, id string) error {
	t := n.tasks.at(id)
	if t == nil {
		return nil
	}
	if t.unit().Origin != source.API {
		return control.Refuse(control.CodeConflict, "choose another id, or end what states the other task",
			"id: %q is already a task of this node in network %q, stated by %s", id, network, t.origin())
	}
	return control.Refuse(control.CodeConflict, "choose another --id, or remove that task first: meshctl task rm "+id,
		"id: %q is already a task of this node in network %q", id, network)
}

// admitPlace refuses a second task of a service at one address and port, where it
// listens itself (N5, L16). Only one program can listen there: with two tasks it would
// get twice its share, and it would go on getting connections when one of them is removed. Tasks that drain are
// about to go, and the tasks in replaces, by id, may be replaced: neither counts.
func (n *localNetwork) admitPlace(e *state.Endpoint, replaces map[string]bool) error {
	first, where := n.holder(e, replaces)
	if first == "" {
		return nil
	}
	if t := n.tasks.at(first); t.unit().Origin != source.API {
		return control.Refuse(control.CodeConflict,
			"give this one an address or ports of its own, or end what states the other",
			"ips: %s, with the same ports, is already task %q of service %q on this node, stated by %s", where, first, e.Service,
			t.origin())
	}
	return control.Refuse(control.CodeConflict,
		"remove that one first: meshctl task rm "+first+"; or give this one targets of its own, as --port 80:8081",
		"ips: %s is already the address of task %q of service %q on this node, which listens at the same port", where, first,
		e.Service)
}

// holder returns the task, the first by id, that has the place of e, and its address.
func (n *localNetwork) holder(e *state.Endpoint, replaces map[string]bool) (first string, where netip.Addr) {
	for _, a := range []netip.Addr{e.IP4, e.IP6} {
		if !a.IsValid() {
			continue
		}
		prefix := placeKey(e.Service, a)
		for key := range n.places.beginning(prefix) {
			id := key[len(prefix):]
			if id == e.ID || replaces[id] || first != "" && id > first {
				continue
			}
			o, err := n.tasks.at(id).endpoint(id)
			if err == nil && !o.Draining && samePorts(o.Ports, e.Ports) {
				first, where = id, a
			}
		}
	}
	return first, where
}

// samePorts reports whether two tasks of one address would listen at one port. A task
// without ports does at all, at each port of its service.
func samePorts(a, b []state.Port) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(p state.Port) bool {
		return slices.ContainsFunc(b, func(q state.Port) bool { return p.Listens() == q.Listens() && p.Proto == q.Proto })
	})
}
