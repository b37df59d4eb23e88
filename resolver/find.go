package resolver

// This file owns the name forms of one network (R2): findIn says what a name
// stands for in the network of a view. It reads the view and nothing else.

import (
	"slices"
	"strings"

	"meshd/state"
)

// form says which rule of R2 a name matched.
type form uint8

const (
	formNone       form = iota
	formEmpty           // an empty non-terminal: exists, has no records (RFC 8020)
	formApex            // the network itself: SOA and NS
	formService         // <service> or <alias>
	formTasks           // tasks.<service>
	formNearest         // nearest.<service>
	formSRV             // _port._proto.<service>
	formEndpoints       // a task, container or host name, an id
	formAddress         // a reverse name of a task or a service
	formPool            // a reverse name that covers part of a pool
	formDomain          // the domain itself: SOA and NS
	formNameServer      // ns.<domain>
	formLocalhost       // localhost and the names under it (RFC 6761)
)

// packable reports whether answers of the form may be kept: they depend on nothing
// but what target.same compares, and on whether VIPs are usable (R5).
func (f form) packable() bool {
	switch f {
	case formNone, formNearest, formPool, formDomain, formNameServer, formLocalhost:
		return false
	}
	return true
}

// target is what a name stands for. The zero value is: nothing.
type target struct {
	form form       // how it is answered
	view state.View // where it was looked for; nil: in no network

	// What answers, by the form. The values are immutable.
	service   *state.Service
	endpoints []*state.Entry // of formEndpoints
	address   state.IPMatch  // of formAddress

	// How the name says so. The texts are parts of the name.
	alias string      // the alias through which the service was found; "": its own name
	port  string      // of formSRV: a name or a number
	proto state.Proto // of formSRV

	// direct: the name is a service's own, or tasks. and that, in the network that
	// is searched first. Nothing but that service can change what it stands for.
	direct bool
}

// same reports whether two names of equal text would be answered from the same.
func (t *target) same(o *target) bool {
	return t.form == o.form && t.service == o.service && t.address == o.address && slices.Equal(t.endpoints, o.endpoints)
}

// findIn finds a lower-case name relative to the network of v. A target without a
// form has the view.
func findIn(v state.View, rel string) target {
	first, rest, dotted := strings.Cut(rel, ".")
	switch {
	case rel == "":
		return target{form: formApex, view: v}
	case rel == "tasks" || rel == "nearest":
		return target{form: formEmpty, view: v}
	case dotted && first == "tasks":
		return findService(v, rest, formTasks)
	case dotted && first == "nearest":
		return findService(v, rest, formNearest)
	case dotted && first[:min(1, len(first))] == "_":
		if t := findSRV(v, first, rest); t.form != formNone {
			return t
		}
	}
	return findPlain(v, rel)
}

// findService finds a service by its name or an alias, for a prefix form.
func findService(v state.View, name string, f form) target {
	m := v.Lookup(name)
	if m.Service == nil || (m.Kind != state.MatchService && m.Kind != state.MatchAlias) {
		return target{view: v}
	}
	t := target{form: f, view: v, service: m.Service, direct: f == formService || f == formTasks}
	if m.Kind == state.MatchAlias {
		t.alias, t.direct = name, false
	}
	return t
}

// findPlain finds names without a prefix.
func findPlain(v state.View, rel string) target {
	m := v.Lookup(rel)
	switch m.Kind {
	case state.MatchService, state.MatchAlias:
		return findService(v, rel, formService)
	case state.MatchEndpoint:
		return target{form: formEndpoints, view: v, service: m.Service, endpoints: m.Endpoints}
	}
	return findSlot(v, rel)
}

// findSlot finds the empty non-terminal <slot>.<task id>.
func findSlot(v state.View, rel string) target {
	slot, id, ok := strings.Cut(rel, ".")
	if !ok || !digits(slot) || strings.Contains(id, ".") {
		return target{view: v}
	}
	for _, e := range v.Lookup(id).Endpoints {
		ep := e.Endpoint()
		if e.ID() == id && strings.HasPrefix(ep.TaskName(), ep.Service+"."+slot+".") {
			return target{form: formEmpty, view: v}
		}
	}
	return target{view: v}
}

// findSRV finds _port._proto.<service> and the empty non-terminal
// _proto.<service>. A port that no serving task has does not exist.
func findSRV(v state.View, first, rest string) target {
	if proto, ok := protoOf(first); ok { // _tcp.web
		t := findService(v, rest, formEmpty)
		if t.form != formNone && hasPort(t.service, "", proto) {
			return t
		}
		return target{view: v}
	}
	label, name, ok := strings.Cut(rest, ".")
	proto, known := protoOf(label)
	if !ok || !known {
		return target{view: v}
	}
	t := findService(v, name, formSRV)
	t.port, t.proto = first[1:], proto
	if t.form == formNone || !hasPort(t.service, t.port, proto) {
		return target{view: v}
	}
	return t
}

func protoOf(label string) (state.Proto, bool) {
	switch label {
	case "_tcp":
		return state.TCP, true
	case "_udp":
		return state.UDP, true
	}
	return 0, false
}

// hasPort reports whether a serving task of s can have the port; "" is any.
func hasPort(s *state.Service, port string, proto state.Proto) bool {
	if members, _ := s.Serving(); members.Len() == 0 {
		return false
	}
	for _, p := range s.Ports {
		if p.Proto == proto && (port == "" || isPort(p, port)) {
			return true
		}
	}
	return false
}
