package resolver

// This file owns which packed answers a client's question may be answered from:
// one fastScope per scope, found by the listener or by the client's address.
// fast_change.go keeps them true when the views change.

import (
	"net/netip"
	"slices"
	"strings"

	"meshd/state"
)

// fastScopes has the scopes of one listener's clients. It belongs to the
// goroutine that reads the listener's socket and takes no lock.
type fastScopes struct {
	// Where scopes come from. Set once.
	source state.Source // of networks and views
	zone   *zone        // that says what names stand for
	bound  *Bound       // the listener
	domain []byte       // in wire form, for the keys of qualified names

	// batch counts the batches of packets; what is read once per batch notes it.
	batch uint64

	// The networks of this node, as of the last batch.
	names []string
	stale <-chan struct{} // closed when names are; nil: read them again

	// A listener with networks of its own has one scope.
	networks *[]string  // the listener's, for which fixed was made
	fixed    *fastScope // nil: the listener is shared

	// A shared listener has a scope for each combination of networks.
	views   []state.View           // of all networks; nil: not read yet
	version uint64                 // the sum of their changes, as of the last batch
	clients [maxClients]fastClient // each at the place of its hash
	scopes  map[string]*fastScope  // by their networks; of listeners with networks, too

	// Room for what is being done.
	change changeScan // the walk through what changed
	text   nameText   // the name being looked up
}

// fastScope is the packed answers for one scope, and what they were made from.
type fastScope struct {
	clientScope

	// The packed answers. Invariant: entry.origin < len(origins).
	table   packedTable  // by name and type
	origins []provenance // what each answer was made from
	types   uint32       // of the entries: a bit for each place in packedTypes

	// The views that the answers come from, and how far they were read.
	// Invariants: len(counts) == len(views); cleared <= version.
	views   []state.View
	counts  []uint64 // of each view's changes
	batch   uint64   // in which version was read
	version uint64   // the sum of counts; 0: never read
	cleared uint64   // since this version, every change of a service invalidated its own names

	nets []fastNet // the networks whose VIPs answers depend on
}

// fastNet is whether a network's VIPs are usable, asked once per batch.
type fastNet struct {
	name   string
	batch  uint64 // in which it was asked
	usable bool
}

// fastClient remembers the scope of a client of a shared listener.
type fastClient struct {
	addr    netip.Addr
	version uint64 // of fastScopes, for which it is true
	scope   *fastScope
}

const (
	maxClients = 256 // places, which clients share by a hash
	maxScopes  = 256 // of a listener; with more, all are made anew
)

func newFastScopes(b *Bound) fastScopes {
	z := b.server.zone
	return fastScopes{source: z.Source, zone: z, bound: b, domain: wireName(z.Domain), scopes: map[string]*fastScope{}}
}

// begin starts a batch of packets: what is read of the views from here on is
// at least as new as the versions.
func (f *fastScopes) begin() {
	f.batch++
	if names, stale := f.source.Networks(); stale != f.stale {
		f.names, f.stale = names, stale
		f.forget()
	}
	networks := f.bound.networks.Load()
	if networks != f.networks {
		f.networks, f.fixed = networks, nil
		f.forget()
	}
	switch {
	case *networks == nil:
		f.readVersion()
	case f.fixed == nil:
		f.fixed = f.scopeOf(clientScope{Networks: *networks})
	default:
		f.refresh(f.fixed)
	}
}

// readVersion reads the version for which clients' scopes are remembered.
func (f *fastScopes) readVersion() {
	if f.views == nil {
		for _, n := range f.names {
			if v := f.source.View(n); v != nil {
				f.views = append(f.views, v)
			}
		}
	}
	f.version = 0
	for _, v := range f.views {
		f.version += v.Changes()
	}
}

// forget drops all scopes with their packed answers.
func (f *fastScopes) forget() {
	clear(f.scopes)
	f.clients = [maxClients]fastClient{}
	f.views, f.fixed = nil, nil
}

// ofClient returns the scope of a client of this listener.
func (f *fastScopes) ofClient(client netip.Addr) *fastScope {
	if f.fixed != nil {
		return f.fixed
	}
	client = client.Unmap()
	c := &f.clients[clientSlot(client)]
	if c.addr != client || c.version != f.version || c.scope == nil {
		*c = fastClient{client, f.version, f.scopeOf(f.zone.scopeOf(client))}
	}
	f.refresh(c.scope)
	return c.scope
}

// clientSlot returns the place of a client among maxClients.
func clientSlot(a netip.Addr) int {
	b := a.As16()
	return int(b[15]^b[14]*31^b[13]*17^b[7]) % maxClients
}

// scopeOf returns the packed answers of a scope, without any if it is new.
func (f *fastScopes) scopeOf(s clientScope) *fastScope {
	key := strings.Join(s.Networks, " ")
	if s.Host {
		key = "*"
	}
	sc := f.scopes[key]
	if sc == nil {
		if len(f.scopes) >= maxScopes {
			f.forget()
		}
		sc = f.newScope(s)
		f.scopes[key] = sc
	}
	f.refresh(sc)
	return sc
}

func (f *fastScopes) newScope(s clientScope) *fastScope {
	sc := &fastScope{clientScope: s}
	names := s.Networks
	if s.Host {
		names = f.names
	}
	for _, n := range names {
		if v := f.source.View(n); v != nil {
			sc.views, sc.counts = append(sc.views, v), append(sc.counts, v.Changes())
		}
	}
	return sc
}

// usable reports whether the VIPs of network i of the scope are usable.
func (f *fastScopes) usable(sc *fastScope, i int) bool {
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

// makeRoom drops the packed answers of the listener if they take share bytes, or
// what every listener may take.
func (f *fastScopes) makeRoom(sc *fastScope, share int) {
	if sc.table.end < pageSize-(1<<13) && len(sc.table.pages) > 0 { // not about to take another page
		return
	}
	total := 0
	for _, s := range f.scopes {
		total += s.bytes()
	}
	if total < max(share, minFastBytes) {
		return
	}
	for _, s := range f.scopes {
		s.table, s.origins, s.types = packedTable{}, nil, 0
	}
}

// bytes is the memory that the packed answers take.
func (sc *fastScope) bytes() int { return sc.table.bytes() + len(sc.origins)*provenanceSize }

// minFastBytes is what a listener may take, however many there are.
const minFastBytes = 1 << 20
