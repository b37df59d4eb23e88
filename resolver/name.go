package resolver

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"meshd/state"
)

// form says which rule of R2 a name matched.
type form uint8

const (
	formNone      form = iota
	formEmpty          // an empty non-terminal: exists, has no records (RFC 8020)
	formApex           // the network itself: SOA and NS
	formService        // <service> or <alias>
	formTasks          // tasks.<service>
	formNearest        // nearest.<service>
	formSRV            // _port._proto.<service>
	formEndpoints      // a task, container or host name, an id
)

func (f form) String() string {
	return [...]string{"none", "empty non-terminal", "zone", "service", "tasks", "nearest", "srv", "task"}[f]
}

// target is what a name in a network stands for.
type target struct {
	form      form
	view      state.View
	service   *state.Service
	endpoints []*state.Entry // of formEndpoints
	alias     string         // set if the service was found through it
	port      string         // of formSRV: a name or a number
	proto     state.Proto    // of formSRV
}

// find resolves a lower-case name relative to the network of v.
func find(v state.View, rel string) target {
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
		return target{}
	}
	t := target{form: f, view: v, service: m.Service}
	if m.Kind == state.MatchAlias {
		t.alias = name
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
		return target{}
	}
	for _, e := range v.Lookup(id).Endpoints {
		ep := e.Endpoint()
		if e.ID() == id && strings.HasPrefix(ep.TaskName(), ep.Service+"."+slot+".") {
			return target{form: formEmpty, view: v}
		}
	}
	return target{}
}

// findSRV finds _port._proto.<service> and the empty non-terminal
// _proto.<service>. A port that no serving task has does not exist.
func findSRV(v state.View, first, rest string) target {
	if proto, ok := protoOf(first); ok { // _tcp.web
		t := findService(v, rest, formEmpty)
		if t.form != formNone && hasPort(t.service, "", proto) {
			return t
		}
		return target{}
	}
	label, name, ok := strings.Cut(rest, ".")
	proto, known := protoOf(label)
	if !ok || !known {
		return target{}
	}
	t := findService(v, name, formSRV)
	t.port, t.proto = first[1:], proto
	if t.form == formNone || !hasPort(t.service, t.port, proto) {
		return target{}
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
	if members, _ := s.Serving(); len(members) == 0 {
		return false
	}
	for _, p := range s.Ports {
		if p.Proto == proto && (port == "" || isPort(p, port)) {
			return true
		}
	}
	return false
}

// fold lower-cases the ASCII letters of a presentation-form name and removes
// its final dot. The root becomes "".
func fold(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// cutDomain removes a suffix of whole labels: "web.net.mesh.internal" without
// "mesh.internal" is "web.net"; the suffix itself gives "".
func cutDomain(name, domain string) (rest string, ok bool) {
	if name == domain {
		return "", true
	}
	rest, ok = strings.CutSuffix(name, domain)
	end := len(rest) - 1
	if !ok || end < 1 || rest[end] != '.' || escaped(rest, end) {
		return "", false
	}
	return rest[:end], true
}

// cutLast splits off the last label: "web.net" is "web" and "net".
func cutLast(name string) (rest, last string) {
	i := strings.LastIndexByte(name, '.')
	for i > 0 && escaped(name, i) {
		i = strings.LastIndexByte(name[:i], '.')
	}
	return name[:max(i, 0)], name[i+1:]
}

// escaped reports whether name[i] belongs to its label, as in "a\.b".
func escaped(name string, i int) bool {
	n := 0
	for i > n && name[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

func labels(name string) int { return dns.CountLabel(name + ".") }

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// reverseAddr reads the address of a reverse name. For a shorter name (an empty
// non-terminal) the prefix covers what is below it. ok is false for a name that
// is not in canonical reverse form.
func reverseAddr(name string) (p netip.Prefix, ok bool) {
	if rest, is := cutDomain(name, "in-addr.arpa"); is {
		return reverse4(rest)
	}
	if rest, is := cutDomain(name, "ip6.arpa"); is {
		return reverse6(rest)
	}
	return netip.Prefix{}, false
}

func reverse4(rest string) (netip.Prefix, bool) {
	var b [4]byte
	n := 0
	for ; rest != ""; n++ {
		var last string
		rest, last = cutLast(rest)
		if n == 4 || !digits(last) || len(last) > 3 || (len(last) > 1 && last[0] == '0') {
			return netip.Prefix{}, false
		}
		v := 0
		for _, c := range last {
			v = v*10 + int(c-'0')
		}
		if v > 255 {
			return netip.Prefix{}, false
		}
		b[n] = byte(v)
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), 8*n), n > 0
}

func reverse6(rest string) (netip.Prefix, bool) {
	var b [16]byte
	n := 0
	for ; rest != ""; n++ {
		var last string
		rest, last = cutLast(rest)
		i := strings.IndexByte("0123456789abcdef", (last + "?")[0])
		if n == 32 || len(last) != 1 || i < 0 {
			return netip.Prefix{}, false
		}
		b[n/2] |= byte(i) << (4 * (1 - n%2))
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 4*n), n > 0
}
