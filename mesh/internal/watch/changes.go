package watch

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"meshd/mesh/control"
	"meshd/state"
)

// hiddenTasks are the tasks whose owner is dead, by id: they come back with it. Forgotten
// are those of an owner that is forgotten, and those that an owner did not bring back.
type hiddenTasks map[string]state.NodeID

// maxHidden bounds the hidden tasks of one network. One above it that comes back is said
// to be added.
const maxHidden = 1 << 16

func (h hiddenTasks) hide(id string, owner state.NodeID) {
	if _, known := h[id]; known || len(h) < maxHidden {
		h[id] = owner
	}
}

func (h hiddenTasks) prune(keep func(state.NodeID) bool) {
	maps.DeleteFunc(h, func(_ string, o state.NodeID) bool { return !keep(o) })
}

// changes compares two views of one service; either may be nil. hidden remembers the tasks
// whose owner is dead; dead tells which owners are.
func changes(old, cur *state.Service, hidden hiddenTasks,
	dead func([]state.NodeID) map[state.NodeID]bool,
) (es []control.Event) {
	add := func(t control.EventType, s *state.Service, e control.Event) {
		e.Type, e.Network, e.Service = t, s.Network, s.Name
		es = append(es, e)
	}
	switch {
	case old == nil && cur == nil:
		return nil
	case old == nil:
		add(control.EventServiceAdded, cur, control.Event{})
		old = &state.Service{Network: cur.Network, Name: cur.Name}
	case cur == nil:
		defer add(control.EventServiceRemoved, old, control.Event{})
		cur = &state.Service{Network: old.Network, Name: old.Name}
	}
	serviceChanges(old, cur, add)
	before := memberPlaces(old)
	for i, m := range cur.Members.All() {
		was, known := before[m.ID()]
		delete(before, m.ID())
		if known && old.Members.At(was).Body() == m.Body() && old.Class(was) == cur.Class(i) {
			continue
		}
		ev := control.Event{
			Task: m.ID(), Node: string(m.Owner()), Addresses: valid(m.Addr4(), m.Addr6()),
			Detail: cur.Class(i).String(),
		}
		switch {
		case !known && hidden[m.ID()] != "":
			delete(hidden, m.ID())
			add(control.EventEndpointRestored, cur, ev)
		case !known:
			add(control.EventEndpointAdded, cur, ev)
		default:
			add(control.EventEndpointUpdated, cur, ev)
		}
	}
	if len(before) == 0 {
		return es
	}
	owners := make([]state.NodeID, old.Members.Len())
	for i, m := range old.Members.All() {
		owners[i] = m.Owner()
	}
	isDead := dead(owners)
	for _, m := range old.Members.All() {
		if _, gone := before[m.ID()]; !gone {
			continue
		}
		t := control.EventEndpointRemoved
		if isDead[m.Owner()] {
			hidden.hide(m.ID(), m.Owner())
			t = control.EventEndpointHidden
		}
		add(t, cur, control.Event{Task: m.ID(), Node: string(m.Owner()), Addresses: valid(m.Addr4(), m.Addr6())})
	}
	return es
}

// serviceChanges adds what changed of the service itself: its addresses, a conflict, its
// settings.
func serviceChanges(old, cur *state.Service, add func(control.EventType, *state.Service, control.Event)) {
	if e, t := vipEvents(valid(old.VIP4, old.VIP6), valid(cur.VIP4, cur.VIP6)); t != "" {
		add(t, cur, e)
	}
	if cur.Conflict != "" && cur.Conflict != old.Conflict {
		add(control.EventServiceConflict, cur, control.Event{Detail: cur.Conflict})
	}
	if old.Settings != cur.Settings {
		add(control.EventServiceUpdated, cur, control.Event{Detail: cur.Mode.String()})
	}
}

// memberPlaces returns the index of each member, by its task id.
func memberPlaces(s *state.Service) map[string]int {
	m := make(map[string]int, s.Members.Len())
	for i, e := range s.Members.All() {
		m[e.ID()] = i
	}
	return m
}

// valid returns the addresses that are there.
func valid(as ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(as, func(a netip.Addr) bool { return !a.IsValid() })
}

// vipEvents returns what happened to the addresses of a service: some came, some went, or
// one took the place of another.
func vipEvents(was, is []netip.Addr) (e control.Event, t control.EventType) {
	came, went := without(is, was), without(was, is)
	switch {
	case len(came)+len(went) == 0:
		return e, ""
	case len(went) == 0:
		return control.Event{Addresses: came}, control.EventVIPAssigned
	case len(came) == 0:
		return control.Event{Addresses: went}, control.EventVIPReleased
	}
	texts := make([]string, len(went))
	for i, a := range went {
		texts[i] = a.String()
	}
	return control.Event{Addresses: is, Detail: "was " + strings.Join(texts, ", ")}, control.EventVIPMoved
}

// without returns the addresses of all that are not in some.
func without(all, some []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return slices.Contains(some, a) })
}
