package resolver

// This file owns whether a packed answer is still true (R6.5): what an answer was
// made from, the versions of the views, and which answers a change invalidates.

import (
	"math/bits"
	"slices"
	"unsafe"

	"meshd/state"
)

// provenance is what an answer was made from. As long as its name stands for
// the same, the answer is true. It is small since each packed name has one.
type provenance struct {
	form    form
	direct  bool   // see target
	view    uint16 // of direct: the service's, in the scope's views
	service *state.Service
	more    *target // nil: form and service are all
}

const provenanceSize = int(unsafe.Sizeof(provenance{}))

// provenanceOf returns what is kept of a target, which from then on is its own.
func (sc *fastScope) provenanceOf(t *target) provenance {
	p := provenance{form: t.form, service: t.service}
	if t.direct {
		i := slices.IndexFunc(sc.views, func(v state.View) bool { return v.Network() == t.service.Network })
		p.direct, p.view = i >= 0, uint16(i)
	}
	if t.endpoints != nil || t.address != (state.IPMatch{}) {
		t.alias, t.port = "", "" // parts of the asked name
		p.more = t
	}
	return p
}

// match reports whether an answer to the name would be made from the same now
// that the name stands for t.
func (p *provenance) match(t *target) bool {
	if p.more != nil {
		return p.more.same(t)
	}
	return t.form == p.form && t.service == p.service && len(t.endpoints) == 0 && t.address == (state.IPMatch{})
}

// refresh reads the version of a scope once per batch, and invalidates what the
// changes since the last batch concern. What is read of the views after that is
// at least as new.
func (f *fastScopes) refresh(sc *fastScope) {
	if sc.batch == f.batch {
		return
	}
	sc.batch = f.batch
	version, complete := uint64(0), true
	f.change.scope, f.change.left = sc, maxInvalidated
	for i, v := range sc.views {
		n := v.Changes()
		if version += n; n == sc.counts[i] {
			continue
		}
		f.change.network = v.Network()
		complete = v.ChangedSince(sc.counts[i], n, f.change.visit) && complete
		sc.counts[i] = n
	}
	if sc.version = version; !complete || f.change.left < 0 {
		sc.cleared = version
	}
}

// maxInvalidated is how many services are invalidated one by one. When more have
// changed it is cheaper to invalidate all.
const maxInvalidated = 256

// changeScan is the state of one walk through the services that changed.
type changeScan struct {
	visit   func(service string) // fastScopes.serviceChanged, bound once: no allocation
	scope   *fastScope
	network string
	left    int    // of maxInvalidated; negative: all must be invalidated
	key     []byte // room for serviceKey
}

// serviceChanged is called for each service that changed.
func (f *fastScopes) serviceChanged(service string) {
	if f.change.left--; f.change.left >= 0 {
		f.invalidate(f.change.scope, service, f.change.network)
	}
}

// invalidate marks the answers to a service's own names, so that they are used
// again only if they are found to be still true.
func (f *fastScopes) invalidate(sc *fastScope, service, network string) {
	for types := sc.types; types != 0 && service != ""; types &= types - 1 {
		qtype := packedTypes[bits.TrailingZeros32(types)]
		for _, tasks := range [...]bool{false, true} {
			for _, qualified := range [...]bool{false, true} {
				key := f.serviceKey(service, network, qtype, tasks, qualified)
				if ref := sc.table.find(hashKey(key), key); ref != 0 {
					e, _ := sc.table.at(ref)
					e.seen = 0
				}
			}
		}
	}
}

// serviceKey is the key of <service> or tasks.<service>, bare or qualified. It
// is good until the next call.
func (f *fastScopes) serviceKey(service, network string, qtype uint16, tasks, qualified bool) []byte {
	key := f.change.key[:0]
	if tasks {
		key = append(key, "\x05tasks"...)
	}
	key = append(append(key, byte(len(service))), service...)
	if qualified {
		key = append(append(key, byte(len(network))), network...)
		key = append(key, f.domain...)
	} else {
		key = append(key, 0)
	}
	key = append(key, byte(qtype>>8), byte(qtype))
	f.change.key = key
	return key
}

// current reports whether a packed answer is what the ordinary path would give
// now. name is the asked name, if it must be looked up.
func (f *fastScopes) current(sc *fastScope, q *asked, ref uint64) bool {
	e, _ := sc.table.at(ref)
	if e.flags&flagUsesVIPs != 0 && f.usable(sc, int(e.net)) != (e.flags&flagVIPs != 0) {
		return false
	}
	if e.seen == sc.version || e.flags&flagDirect != 0 && e.seen >= sc.cleared && e.seen > 0 {
		return true
	}
	if !f.unchanged(sc, q, &sc.origins[e.origin]) {
		return false
	}
	e.seen = sc.version
	return true
}

// unchanged reports whether the asked name stands for what it did.
func (f *fastScopes) unchanged(sc *fastScope, q *asked, p *provenance) bool {
	if p.direct {
		return sc.views[p.view].Service(p.service.Name) == p.service
	}
	name, ok := f.text.of(q)
	if !ok {
		return false
	}
	v := f.zone.find(sc.clientScope, name)
	return p.match(&v.target)
}
