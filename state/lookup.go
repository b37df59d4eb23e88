package state

import (
	"net/netip"
	"slices"
	"strings"
)

// This file owns how readers find what a name, an id or an address stands for.

func (x *addrIndex) byAddr(a netip.Addr) (*Entry, string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.rows[x.row(a)], x.vips[a]
}

// byID finds the endpoint with that id, or with that short id, that matches; of
// several the first by id and owner, as far as a long list is searched.
func (x *addrIndex) byID(id string, match func(*Entry) bool) (found *Entry) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	h := idHash(id)
	look := func(row uint32) {
		e := x.rows[row]
		if e == nil || e.Key() != id && (len(id) != shortID || !strings.HasPrefix(e.Key(), id)) || !match(e) {
			return
		}
		if found == nil || compareID(e, found) < 0 { // an id sorts before those it is a prefix of
			found = e
		}
	}
	look(x.ids[h])
	for _, t := range x.twin[h].some() {
		look(t.row)
	}
	if len(x.full) > 0 {
		for _, row := range x.full[fullHash(id)] {
			look(row)
		}
	}
	return found
}

// ByIP implements View.
func (ix *index) ByIP(a netip.Addr) IPMatch {
	a = a.Unmap()
	e, vip := ix.addrs.byAddr(a)
	m := IPMatch{Endpoint: e}
	if s := ix.Service(vip); s != nil && (s.VIP4 == a || s.VIP6 == a || slices.Contains(s.OtherVIPs, a)) {
		m.Service = s
	}
	return m
}

// Task implements View.
func (ix *index) Task(id string) *Entry {
	return ix.addrs.byID(id, func(e *Entry) bool { return e.Key() == id })
}

// Lookup implements View.
func (ix *index) Lookup(name string) Match {
	if s := ix.Service(name); s != nil {
		return Match{Kind: MatchService, Service: s}
	}
	n, _ := ix.names.Load(name)
	if n != nil && len(n.services) > 0 {
		return ix.alias(n.services)
	}
	if n != nil && len(n.endpoints) > 0 {
		return Match{Kind: MatchEndpoint, Endpoints: n.endpoints, Service: ix.Service(n.endpoints[0].Group())}
	}
	if e := ix.task(name); e != nil {
		return Match{Kind: MatchEndpoint, Endpoints: []*Entry{e}, Service: ix.Service(e.Group())}
	}
	return Match{}
}

// alias picks the service that an alias stands for: the first by name that has tasks to
// serve, else the first that has failing ones (C8), else the first. The others are named in Shadowed.
func (ix *index) alias(services []string) Match {
	var m Match
	for _, name := range services[:min(len(services), longList)] {
		s := ix.Service(name)
		if s == nil {
			continue
		}
		if m.Service == nil || m.Service.standing() < s.standing() {
			if m.Service != nil {
				m.Shadowed = append(m.Shadowed, m.Service.Name)
			}
			m.Service, m.Kind = s, MatchAlias
			continue
		}
		m.Shadowed = append(m.Shadowed, name)
	}
	return m
}

// task finds an endpoint by "<service>.<slot>.<id>", "<service>.<id>", id or short id.
func (ix *index) task(name string) *Entry {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return ix.addrs.byID(name, func(*Entry) bool { return true })
	}
	return ix.addrs.byID(name[dot+1:], func(e *Entry) bool {
		if !strings.HasPrefix(name, e.Group()) {
			return false
		}
		ep := e.Endpoint()
		return name[:dot+1]+ep.ID == ep.TaskName()
	})
}
