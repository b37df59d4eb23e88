package mesh

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"meshd/gossip"
	"meshd/mesh/control"
	"meshd/state"
)

// watchViews turns changes of the views into events. It follows every network
// that the node takes part in.
func (n *Node) watchViews(ctx context.Context) error {
	cancels := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range cancels {
			stop()
		}
	}()
	for {
		names, stale := n.host.Source().Networks()
		for _, name := range names {
			if cancels[name] == nil {
				sub, stop := context.WithCancel(ctx)
				cancels[name] = stop
				n.emit(control.Event{Type: control.EventNetworkAdded, Network: name})
				go n.watchView(sub, n.host.Source().View(name))
			}
		}
		for name, stop := range cancels {
			if !slices.Contains(names, name) {
				stop()
				delete(cancels, name)
				n.emit(control.Event{Type: control.EventNetworkRemoved, Network: name})
			}
		}
		select {
		case <-stale:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) watchView(ctx context.Context, v state.View) {
	if v == nil {
		return
	}
	sub := v.Subscribe()
	defer sub.Close()
	seen := map[string]*state.Service{}
	hidden := map[string]bool{}
	for _, s := range v.Services() {
		n.emit(n.changes(nil, s, hidden)...)
		seen[s.Name] = s
	}
	for {
		select {
		case <-sub.Ready():
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

// changes compares two views of one service; either may be nil. hidden
// remembers the endpoints whose owner is dead.
func (n *Node) changes(old, cur *state.Service, hidden map[string]bool) []control.Event {
	var es []control.Event
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
	before := memberBodies(old)
	for i, m := range cur.Members {
		body, known := before[m.ID()]
		delete(before, m.ID())
		ev := control.Event{Task: m.ID(), Node: string(m.Owner()), Addresses: valid(m.Addr4(), m.Addr6()), Detail: cur.Class(i).String()}
		switch {
		case !known && hidden[m.ID()]:
			delete(hidden, m.ID())
			add(control.EventEndpointRestored, cur, ev)
		case !known:
			add(control.EventEndpointAdded, cur, ev)
		case body != m.Body()+ev.Detail:
			add(control.EventEndpointUpdated, cur, ev)
		}
	}
	for _, m := range old.Members {
		if _, gone := before[m.ID()]; !gone {
			continue
		}
		t := control.EventEndpointRemoved
		if n.liveness(m.Owner()) == state.Dead {
			hidden[m.ID()], t = true, control.EventEndpointHidden
		}
		add(t, cur, control.Event{Task: m.ID(), Node: string(m.Owner()), Addresses: valid(m.Addr4(), m.Addr6())})
	}
	return es
}

// liveness asks the core, which is ahead of its events.
func (n *Node) liveness(o state.NodeID) (l state.Liveness) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	l = state.Alive
	_ = n.host.Do(ctx, func(c *gossip.Core, _ time.Duration) { l = c.Store().Liveness(o) })
	return l
}

func (n *Node) vipChanges(old, cur *state.Service, add func(control.EventType, *state.Service, control.Event)) {
	was, is := valid(old.VIP4, old.VIP6), valid(cur.VIP4, cur.VIP6)
	switch {
	case slices.Equal(was, is):
	case len(was) == 0:
		add(control.EventVIPAssigned, cur, control.Event{Addresses: is})
	case len(is) == 0:
		add(control.EventVIPReleased, cur, control.Event{Addresses: was})
	default:
		add(control.EventVIPMoved, cur, control.Event{Addresses: is, Detail: "was " + was[0].String()})
	}
	if cur.Conflict != "" && cur.Conflict != old.Conflict {
		add(control.EventServiceConflict, cur, control.Event{Detail: cur.Conflict})
	}
	if old.Settings != cur.Settings {
		add(control.EventServiceUpdated, cur, control.Event{Detail: cur.Mode.String()})
	}
}

func memberBodies(s *state.Service) map[string]string {
	m := make(map[string]string, len(s.Members))
	for i, e := range s.Members {
		m[e.ID()] = e.Body() + s.Class(i).String()
	}
	return m
}

func valid(as ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(as, func(a netip.Addr) bool { return !a.IsValid() })
}
