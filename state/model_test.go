package state

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// This file is the naive model of a view: everything recomputed from the
// records of a table, without an index.

// modelEndpoint is an endpoint that a view must show.
type modelEndpoint struct {
	Endpoint
	class Class
	entry *Entry
}

func modelClass(t *Table, e *Entry, ep *Endpoint) Class {
	class := Serving
	switch {
	case ep.Draining:
		class = Draining
	case ep.Health == HealthFailing:
		class = Failing
	case ep.Health != HealthPassing:
		class = Unready
	}
	switch t.streams[e.Owner()].status {
	case Dead:
		return Hidden
	case Suspected:
		if class == Serving {
			return Suspect
		}
	}
	return class
}

// model is what the records of a table say.
type model struct {
	services  map[string][]modelEndpoint // shown, by class, id, owner
	exists    map[string]bool
	settings  map[string]SettingsClaim
	endpoints []modelEndpoint // shown, by id, owner
}

func newModel(t *Table) *model {
	m := &model{services: map[string][]modelEndpoint{}, exists: map[string]bool{}, settings: map[string]SettingsClaim{}}
	bodies := map[string]string{}
	t.Walk(func(e *Entry) bool {
		if e.poison {
			return true
		}
		switch e.Kind() {
		case KindEndpoint:
			ep, err := ParseEndpoint(e.Body())
			if err != nil {
				panic(err)
			}
			ep.ID, ep.Service, ep.Owner = e.Key(), e.Group(), e.Owner()
			m.exists[e.Group()] = true
			if class := modelClass(t, e, &ep); class != Hidden {
				me := modelEndpoint{ep, class, e}
				m.services[e.Group()] = append(m.services[e.Group()], me)
				m.endpoints = append(m.endpoints, me)
			}
		case KindVIP:
			m.exists[claimService(e.Key())] = true
		case KindSettings:
			m.exists[e.Key()] = true
			c, _ := ParseSettings(e.Body())
			old, ok := m.settings[e.Key()]
			if !ok || c.Lamport > old.Lamport || c.Lamport == old.Lamport && e.Body() > bodies[e.Key()] {
				m.settings[e.Key()], bodies[e.Key()] = c, e.Body()
			}
		}
		return true
	})
	lost := func(e modelEndpoint) bool { // S18: an id is one task's
		return slices.ContainsFunc(m.endpoints, func(o modelEndpoint) bool {
			return o.ID == e.ID && o.entry != e.entry &&
				o.entry.winsID(e.entry)
		})
	}
	for s := range m.services {
		m.services[s] = slices.DeleteFunc(m.services[s], lost)
	}
	m.endpoints = slices.DeleteFunc(slices.Clone(m.endpoints), lost)
	byID := func(a, b modelEndpoint) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(string(a.Owner), string(b.Owner)))
	}
	slices.SortFunc(m.endpoints, byID)
	for _, es := range m.services {
		slices.SortFunc(es, func(a, b modelEndpoint) int { return cmp.Or(cmp.Compare(a.class, b.class), byID(a, b)) })
	}
	return m
}

func entries(es []modelEndpoint) []*Entry {
	var out []*Entry
	for _, e := range es {
		out = append(out, e.entry)
	}
	return out
}

// lookup is the precedence of MatchKind, naively.
func (m *model) lookup(name string) (kind MatchKind, service string, shown []*Entry) {
	if m.exists[name] {
		return MatchService, name, nil
	}
	var aliased []string
	for s, es := range m.services {
		if slices.ContainsFunc(es, func(e modelEndpoint) bool { return slices.Contains(e.Aliases, name) }) {
			aliased = append(aliased, s)
		}
	}
	slices.Sort(aliased)
	for _, worst := range []Class{Suspect, Failing} {
		for _, s := range aliased {
			if slices.ContainsFunc(m.services[s], func(e modelEndpoint) bool { return e.class <= worst }) {
				return MatchAlias, s, nil
			}
		}
	}
	if len(aliased) > 0 {
		return MatchAlias, aliased[0], nil
	}
	named := func(match func(e *modelEndpoint) bool) []*Entry {
		var es []*Entry
		for i := range m.endpoints {
			if match(&m.endpoints[i]) {
				es = append(es, m.endpoints[i].entry)
			}
		}
		return es
	}
	if es := named(func(e *modelEndpoint) bool { return e.Name == name || e.Hostname == name }); len(es) > 0 {
		return MatchEndpoint, es[0].Group(), es
	}
	es := named(func(e *modelEndpoint) bool {
		return e.ID == name || len(name) == shortID && strings.HasPrefix(e.ID, name) ||
			e.TaskName() == name || len(e.ID) > shortID && strings.TrimSuffix(e.TaskName(), e.ID[shortID:]) == name
	})
	if len(es) > 0 {
		return MatchEndpoint, es[0].Group(), es[:1]
	}
	return MatchNone, "", nil
}

// checkView compares a published view with the model: S9, S14, R2.
func checkView(t testing.TB, table *Table, names []string, addrs []netip.Addr) {
	t.Helper()
	m, v := newModel(table), table.View()
	var got []string
	vips := map[netip.Addr]string{}
	for _, s := range v.Services() {
		got = append(got, s.Name)
		if v.Service(s.Name) != s {
			t.Fatalf("Service(%q) is not what Services says", s.Name)
		}
		if want := entries(m.services[s.Name]); !slices.Equal(s.Members.AppendTo(nil), want) {
			t.Fatalf("service %q: members %v, want %v", s.Name, ids(s.Members.AppendTo(nil)), ids(want))
		}
		var count [Hidden]int32
		ports, aliases := map[Port]bool{}, map[string]bool{}
		for i, e := range m.services[s.Name] {
			count[e.class]++
			if s.Class(i) != e.class {
				t.Fatalf("service %q: member %d is %v, want %v", s.Name, i, s.Class(i), e.class)
			}
			for _, p := range e.Ports {
				ports[p.ofService()] = true
			}
			for _, a := range e.Aliases {
				aliases[a] = true
			}
		}
		if s.Count != count {
			t.Fatalf("service %q: count %v, want %v", s.Name, s.Count, count)
		}
		if want := slices.SortedFunc(maps.Keys(ports), comparePort); !slices.Equal(s.Ports, want) {
			t.Fatalf("service %q: ports %v, want %v", s.Name, s.Ports, want)
		}
		if want := slices.Sorted(maps.Keys(aliases)); !slices.Equal(s.Aliases, want) {
			t.Fatalf("service %q: aliases %v, want %v", s.Name, s.Aliases, want)
		}
		if s.Settings != m.settings[s.Name].Settings {
			t.Fatalf("S8: service %q: settings %+v, want %+v", s.Name, s.Settings, m.settings[s.Name])
		}
		for _, a := range s.vips() {
			if other, taken := vips[a]; a.IsValid() && taken && other != s.Name {
				t.Fatalf("V5: %s is the VIP of %q and %q", a, other, s.Name)
			}
			vips[a] = s.Name
		}
	}
	if want := slices.Sorted(maps.Keys(m.exists)); !slices.Equal(got, want) {
		t.Fatalf("services %v, want %v", got, want)
	}
	for _, n := range names {
		kind, service, shown := m.lookup(n)
		g := v.Lookup(n)
		gs := ""
		if g.Service != nil {
			gs = g.Service.Name
		}
		if g.Kind != kind || gs != service || !slices.Equal(g.Endpoints, shown) {
			t.Fatalf("Lookup(%q) = %v %q %v, want %v %q %v", n, g.Kind, gs, ids(g.Endpoints), kind, service, ids(shown))
		}
	}
	for _, a := range addrs {
		var want *Entry
		for _, e := range m.endpoints {
			if e.IP4 == a || e.IP6 == a {
				want = e.entry
				break
			}
		}
		g := v.ByIP(a)
		gs := ""
		if g.Service != nil {
			gs = g.Service.Name
		}
		if g.Endpoint != want || gs != vips[a] {
			t.Fatalf("ByIP(%s) = %v %q, want %v %q", a, ids([]*Entry{g.Endpoint}), gs, ids([]*Entry{want}), vips[a])
		}
	}
}

func ids(es []*Entry) []string {
	var out []string
	for _, e := range es {
		if e == nil {
			out = append(out, "-")
			continue
		}
		out = append(out, fmt.Sprintf("%s@%s#%d", e.Key(), e.Owner(), e.Version()))
	}
	return out
}
