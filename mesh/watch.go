package mesh

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// watchViews turns changes of the views into events. It follows every network
// that the node takes part in; one that it left and joined again between two
// looks has another view. It returns when the last follower has ended.
func (n *Node) watchViews(ctx context.Context) error {
	type follower struct {
		view state.View
		stop context.CancelFunc
	}
	followed := map[string]follower{}
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		names, stale := n.host.Source().Networks()
		for name, f := range followed {
			if n.host.Source().View(name) != f.view {
				f.stop()
				delete(followed, name)
				n.told.Set("pool "+name, "")
				n.emit(control.Event{Type: control.EventNetworkRemoved, Network: name})
			}
		}
		for _, name := range names {
			v := n.host.Source().View(name)
			if _, known := followed[name]; known || v == nil {
				continue
			}
			sub, stop := context.WithCancel(ctx)
			followed[name] = follower{v, stop}
			n.emit(control.Event{Type: control.EventNetworkAdded, Network: name})
			all.Go(func() { n.watchView(sub, v) })
		}
		select {
		case <-stale:
		case <-ctx.Done():
			return nil
		}
	}
}

// hiddenTasks remembers the tasks whose owner is dead, by id: they come back
// with it. Those of an owner that is forgotten are forgotten, and those that one
// that is back did not bring.
type hiddenTasks map[string]state.NodeID

// maxHidden bounds them, for each network. One that is over it and comes back is
// told as a new one.
const maxHidden = 1 << 16

func (h hiddenTasks) hide(id string, owner state.NodeID) {
	if _, known := h[id]; known || len(h) < maxHidden {
		h[id] = owner
	}
}

func (h hiddenTasks) prune(known func(state.NodeID) bool) {
	maps.DeleteFunc(h, func(_ string, o state.NodeID) bool { return !known(o) })
}

// pruneEvery is how often hidden tasks are looked through.
const pruneEvery = time.Minute

func (n *Node) watchView(ctx context.Context, v state.View) {
	sub := v.Subscribe()
	defer sub.Close()
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	seen := map[string]*state.Service{}
	hidden := hiddenTasks{}
	for _, s := range v.Services() {
		n.emit(n.changes(nil, s, hidden)...)
		seen[s.Name] = s
	}
	for {
		select {
		case <-sub.Ready():
		case <-tick.C:
			n.pruneHidden(ctx, v.Network(), hidden)
			continue
		case <-ctx.Done():
			return
		}
		names := sub.Drain()
		slices.Sort(names)
		for _, name := range names {
			if name == "" {
				continue
			}
			s := v.Service(name)
			n.emit(n.changes(seen[name], s, hidden)...)
			if seen[name] = s; s == nil {
				delete(seen, name)
			}
		}
	}
}

// pruneHidden forgets the hidden tasks of owners that have no stream any more, or
// live.
func (n *Node) pruneHidden(ctx context.Context, network string, hidden hiddenTasks) {
	if len(hidden) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	there := map[state.NodeID]bool{}
	err := n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		if t := c.Store().Table(network); t != nil {
			for _, o := range t.Owners() {
				there[o] = c.Store().Liveness(o) == state.Dead
			}
		}
	})
	if err == nil {
		hidden.prune(func(o state.NodeID) bool { return there[o] })
	}
}

// changes compares two views of one service; either may be nil. hidden
// remembers the endpoints whose owner is dead.
func (n *Node) changes(old, cur *state.Service, hidden hiddenTasks) (es []control.Event) {
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
	n.vipChanges(old, cur, add)
	before := memberPlaces(old)
	for i, m := range cur.Members {
		was, known := before[m.ID()]
		delete(before, m.ID())
		if known && old.Members[was].Body() == m.Body() && old.Class(was) == cur.Class(i) {
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
	dead := n.deadOwners(old)
	for _, m := range old.Members {
		if _, gone := before[m.ID()]; !gone {
			continue
		}
		t := control.EventEndpointRemoved
		if dead[m.Owner()] {
			hidden.hide(m.ID(), m.Owner())
			t = control.EventEndpointHidden
		}
		add(t, cur, control.Event{Task: m.ID(), Node: string(m.Owner()), Addresses: valid(m.Addr4(), m.Addr6())})
	}
	return es
}

// deadOwners asks the core, which is ahead of its events, who of the owners of
// a service's tasks is dead.
func (n *Node) deadOwners(s *state.Service) map[state.NodeID]bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	dead := map[state.NodeID]bool{}
	_ = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) {
		for _, m := range s.Members {
			dead[m.Owner()] = c.Store().Liveness(m.Owner()) == state.Dead
		}
	})
	return dead
}

func (n *Node) vipChanges(old, cur *state.Service, add func(control.EventType, *state.Service, control.Event)) {
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

// memberPlaces returns where each task stands among the members, by id.
func memberPlaces(s *state.Service) map[string]int {
	m := make(map[string]int, len(s.Members))
	for i, e := range s.Members {
		m[e.ID()] = i
	}
	return m
}

func valid(as ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(as, func(a netip.Addr) bool { return !a.IsValid() })
}

// vipEvents are what happened to the addresses of a service: some came, some
// went, or one took the place of another.
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

// without returns what of all is not in some.
func without(all, some []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return slices.Contains(some, a) })
}
