package resolver

import (
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"meshd/state"
)

// fastScope is the packed answers for one scope, and what they were made from.
type fastScope struct {
	Scope
	table packedTable
	deps  []dep

	views   []state.View // that its answers come from
	counts  []uint64     // of their changes, for version
	batch   uint64       // of packets, for which version was read
	version uint64       // grows with every change in the views
	known   uint64       // since this version, every change of a service was told to its own names
	types   uint32       // of its entries: bits of fastTypes
	nets    []fastNet    // networks whose VIPs answers depend on
}

// fastNet is whether a network's VIPs are usable, asked once per batch.
type fastNet struct {
	name   string
	batch  uint64
	usable bool
}

// dep is what an answer was made from. If the same name means the same again,
// the answer is still true.
type dep struct {
	form    form
	direct  bool   // the name is the service's own, which nothing else can take over
	view    uint16 // of direct: the service's, in the scope's views
	service *state.Service
	more    *meaning // nil: form and service are all
}

// meaning is what a name stands for in a scope.
type meaning struct {
	form      form
	direct    bool // by the service's own name, where it is looked for first
	service   *state.Service
	endpoints []*state.Entry // of formEndpoints
	match     state.IPMatch  // of formAddress
}

// formAddress is a reverse name that stands for a task or a service.
const formAddress form = 0x80

// dep is what is kept of m.
func (m *meaning) dep(sc *fastScope) dep {
	d := dep{form: m.form, service: m.service}
	if m.direct {
		i := slices.IndexFunc(sc.views, func(v state.View) bool { return v.Network() == m.service.Network })
		d.direct, d.view = i >= 0, uint16(i)
	}
	if m.endpoints != nil || m.match != (state.IPMatch{}) {
		d.more = m
	}
	return d
}

// is reports whether the answer would be made from the same.
func (d *dep) is(m *meaning) bool {
	if d.more != nil {
		return d.more.is(m)
	}
	return m.is(&meaning{form: d.form, service: d.service})
}

func (m *meaning) is(o *meaning) bool {
	return m.form == o.form && m.service == o.service && m.match == o.match && slices.Equal(m.endpoints, o.endpoints)
}

// verdict says who answers a name and how.
type verdict struct {
	meaning      // found: form is not formNone
	denied  bool // NXDOMAIN
	apex    int  // of a denied name: where in the name the SOA's owner begins
	zone    int  // of a denied name: where the domain begins in the name, or -1
}

// locate does what Zone.Answer does to find what a name stands for, without
// allocating for names of services and unknown ones. The zero verdict leaves the
// name to the ordinary path. A differential fuzz test holds the two together.
func (f *fastPath) locate(sc *fastScope, name string) verdict {
	if rest, ok := cutDomain(name, f.domain); ok {
		return f.locateQualified(sc, name, rest)
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return verdict{}
	}
	if strings.HasSuffix(name, ".arpa") {
		if p, ok := reverseAddr(name); ok {
			return verdict{meaning: f.locateAddr(sc, p)}
		}
	}
	return f.locateRelative(sc, name)
}

func (f *fastPath) view(sc *fastScope, network string) state.View {
	if !sc.sees(network) {
		return nil
	}
	return f.server.cfg.Source.View(network)
}

func (f *fastPath) locateQualified(sc *fastScope, name, rest string) verdict {
	if rest == "" {
		return verdict{}
	}
	zone := len(name) - len(f.domain)
	rel, network := cutLast(rest)
	v := f.view(sc, network)
	switch {
	case v == nil && rest == "ns":
		return verdict{}
	case v == nil:
		return verdict{denied: true, apex: zone, zone: zone}
	}
	if m := mean(find(v, rel)); m.form != formNone {
		m.direct = m.isDirect(rel)
		return verdict{meaning: m}
	}
	return verdict{denied: v.Synced(), apex: len(rest) - len(network), zone: zone}
}

func mean(t target) meaning {
	return meaning{form: t.form, service: t.service, endpoints: t.endpoints}
}

// isDirect reports whether a name is <service> or tasks.<service>, and no alias.
func (m *meaning) isDirect(name string) bool {
	switch m.form {
	case formService:
		return name == m.service.Name
	case formTasks:
		return len(name) == len("tasks.")+len(m.service.Name) && name[len("tasks."):] == m.service.Name
	}
	return false
}

// locateAddr finds a task or a service by its address.
func (f *fastPath) locateAddr(sc *fastScope, p netip.Prefix) meaning {
	if p.Bits() < p.Addr().BitLen() {
		return meaning{}
	}
	for _, v := range sc.views {
		m := meaning{form: formAddress, match: v.ByIP(p.Addr())}
		switch {
		case m.match.Service != nil:
			m.service = m.match.Service
			return m
		case m.match.Endpoint != nil:
			m.service = v.Service(m.match.Endpoint.Group()) // its TTL
			return m
		}
	}
	return meaning{}
}

// locateRelative finds <name> and <name>.<network>.
func (f *fastPath) locateRelative(sc *fastScope, name string) verdict {
	synced := true
	for i, n := range sc.Networks {
		v := f.server.cfg.Source.View(n)
		if v == nil {
			continue
		}
		if m := mean(find(v, name)); m.form != formNone {
			m.direct = i == 0 && m.isDirect(name)
			return verdict{meaning: m}
		}
		synced = synced && v.Synced()
	}
	rel, network := cutLast(name)
	if v := f.view(sc, network); v != nil {
		if m := mean(find(v, rel)); m.form != formNone {
			return verdict{meaning: m}
		}
	}
	if !synced || !f.deniable(rel, network) {
		return verdict{}
	}
	return verdict{denied: true, apex: len(name) - len(network), zone: -1}
}

// deniable says of an unknown relative name whether it is surely not to be
// forwarded. There are more such names, for the ordinary path to know.
func (f *fastPath) deniable(rel, last string) bool {
	if rel == "" {
		return !f.server.cfg.ForwardBare
	}
	return f.server.cfg.Source.View(last) != nil && !slices.Contains(f.server.cfg.SharedSuffixes, last)
}

// scopeFor returns the scope of a client of this listener.
func (f *fastPath) scopeFor(client netip.Addr) *fastScope {
	if f.fixed != nil {
		return f.fixed
	}
	client = client.Unmap()
	slot := &f.clients[clientSlot(client)]
	if slot.addr != client || slot.version != f.version || slot.scope == nil {
		*slot = fastClient{client, f.version, f.scopeTable(f.server.zone.ScopeOf(client))}
	}
	f.refresh(slot.scope)
	return slot.scope
}

// fastClient remembers the scope of a client of a shared listener.
type fastClient struct {
	addr    netip.Addr
	version uint64
	scope   *fastScope
}

const (
	maxClients = 256
	maxScopes  = 256
)

func clientSlot(a netip.Addr) int {
	b := a.As16()
	return int(b[15]^b[14]*31^b[13]*17^b[7]) % maxClients
}

// scopeTable returns the packed answers of a scope.
func (f *fastPath) scopeTable(s Scope) *fastScope {
	key := strings.Join(s.Networks, " ")
	if s.Host {
		key = "*"
	}
	sc := f.scopes[key]
	if sc == nil {
		if len(f.scopes) >= maxScopes {
			f.forget()
		}
		sc = &fastScope{Scope: s}
		names := s.Networks
		if s.Host {
			names = f.names
		}
		for _, n := range names {
			if v := f.server.cfg.Source.View(n); v != nil {
				sc.views, sc.counts = append(sc.views, v), append(sc.counts, v.Changes())
			}
		}
		f.scopes[key] = sc
	}
	f.refresh(sc)
	return sc
}

// refresh reads the version of a scope once per batch, and marks what the
// changes since the last batch concern. What is read of the views after that is
// at least as new.
func (f *fastPath) refresh(sc *fastScope) {
	if sc.batch == f.batch {
		return
	}
	sc.batch = f.batch
	version, known := uint64(0), true
	d := doubts{scope: sc, left: maxDoubts}
	for i, v := range sc.views {
		n := v.Changes()
		if version += n; n == sc.counts[i] {
			continue
		}
		d.network = v.Network()
		f.doubts = d
		known = v.ChangedSince(sc.counts[i], n, f.changed) && known
		d.left = f.doubts.left
		sc.counts[i] = n
	}
	if sc.version = version; !known || d.left < 0 {
		sc.known = version
	}
}

// doubts is what changed is told about.
type doubts struct {
	scope   *fastScope
	network string
	left    int // after so many services it is cheaper to doubt everything
}

const maxDoubts = 256

// serviceChanged is called for each service that changed.
func (f *fastPath) serviceChanged(service string) {
	if f.doubts.left--; f.doubts.left >= 0 {
		f.doubt(f.doubts.scope, service, f.doubts.network)
	}
}

// doubt marks the answers to a service's own names, so that they are used again
// only if they are found to be still true.
func (f *fastPath) doubt(sc *fastScope, service, network string) {
	for types := sc.types; types != 0 && service != ""; types &= types - 1 {
		qtype := fastTypes[bits.TrailingZeros32(types)]
		for _, tasks := range []bool{false, true} {
			for _, qualified := range []bool{false, true} {
				key := f.serviceKey(service, network, qtype, tasks, qualified)
				if ref := sc.table.find(hashKey(key), key); ref != 0 {
					e, _ := sc.table.at(ref)
					e.seen = 0
				}
			}
		}
	}
}

// serviceKey is the key of <service> or tasks.<service>, bare or qualified.
func (f *fastPath) serviceKey(service, network string, qtype uint16, tasks, qualified bool) []byte {
	key := f.key[:0]
	if tasks {
		key = append(key, "\x05tasks"...)
	}
	key = append(append(key, byte(len(service))), service...)
	if qualified {
		key = append(append(key, byte(len(network))), network...)
		key = append(key, f.soa.domain...)
	} else {
		key = append(key, 0)
	}
	key = append(key, byte(qtype>>8), byte(qtype))
	f.key = key
	return key
}

// sumChanges is a number that grows with every change in the views.
func sumChanges(views []state.View) (sum uint64) {
	for _, v := range views {
		sum += v.Changes()
	}
	return sum
}

// usable reports whether the VIPs of network i of the scope are usable.
func (f *fastPath) usable(sc *fastScope, i int) bool {
	n := &sc.nets[i]
	if n.batch != f.batch {
		n.batch, n.usable = f.batch, f.bound.vips == nil || f.bound.vips(n.name)
	}
	return n.usable
}

// net returns the index of a network in sc.nets.
func (sc *fastScope) net(name string) int {
	i := slices.IndexFunc(sc.nets, func(n fastNet) bool { return n.name == name })
	if i < 0 {
		i, sc.nets = len(sc.nets), append(sc.nets, fastNet{name: name})
	}
	return i
}
